metadata description = 'An Azure OpenAI resource with its deployments. Entra only: it has no keys that could leak.'

@description('Azure region.')
param location string

@description('Name of the account, and its subdomain.')
param name string

@description('Its deployments: name, model, version, sku (for example GlobalStandard or GlobalProvisionedManaged) and capacity (thousands of tokens a minute, or PTUs).')
param deployments array

@description('Whether the account answers on the internet (with a token of Entra even then).')
param publicAccess bool

@description('Log Analytics workspace.')
param workspaceId string

@description('Tags.')
param tags object

resource account 'Microsoft.CognitiveServices/accounts@2024-10-01' = {
  // checkov:skip=CKV_AZURE_134: networkMode private disables public access; in public mode only tokens of Entra open it
  // checkov:skip=CKV_AZURE_238: the account calls nothing itself, so it needs no identity
  name: name
  location: location
  tags: tags
  kind: 'OpenAI'
  sku: {
    name: 'S0'
  }
  properties: {
    // Entra tokens are taken only on a subdomain of the account's own.
    customSubDomainName: name
    disableLocalAuth: true
    publicNetworkAccess: publicAccess ? 'Enabled' : 'Disabled'
    networkAcls: {
      defaultAction: publicAccess ? 'Allow' : 'Deny'
    }
  }
}

// One after the other: the service refuses changes of one account at the same time.
@batchSize(1)
resource models 'Microsoft.CognitiveServices/accounts/deployments@2024-10-01' = [for entry in deployments: {
  parent: account
  name: entry.name
  sku: {
    name: entry.sku
    capacity: entry.capacity
  }
  properties: {
    model: {
      format: 'OpenAI'
      name: entry.model
      version: entry.version
    }
    // What a model answers, and what it costs, changes by a decision, not by a calendar.
    versionUpgradeOption: 'NoAutoUpgrade'
  }
}]

resource logs 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  name: 'spillway'
  scope: account
  properties: {
    workspaceId: workspaceId
    logs: [
      {
        categoryGroup: 'audit'
        enabled: true
      }
    ]
    metrics: [
      {
        category: 'AllMetrics'
        enabled: true
      }
    ]
  }
}

@description('Resource id.')
output id string = account.id

@description('Name.')
output name string = account.name

@description('URL, with a slash at the end, as Azure gives it.')
output endpoint string = account.properties.endpoint
