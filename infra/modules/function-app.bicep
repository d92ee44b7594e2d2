metadata description = 'A function app on a Flex Consumption plan of its own, with the settings that the handler and the triggers read.'

@description('Azure region.')
param location string

@description('Name of the app.')
param name string

@description('Name of its plan.')
param planName string

@description('The service of azure.yaml that is deployed to it.')
param serviceName string

@description('Which functions run: all, http (what apps and operators call) or events (batch, utilization, chargeback).')
@allowed(['all', 'http', 'events'])
param runs string

@description('Resource id of the gateway\'s identity.')
param identityId string

@description('Client id of the gateway\'s identity.')
param identityClientId string

@description('Name of the storage account of the Functions host.')
param runtimeAccountName string

@description('URL of its blobs, with a slash at the end.')
param runtimeBlobEndpoint string

@description('Name of the container for the package.')
param packageContainer string

@description('Connection string of Application Insights.')
param telemetryConnectionString string

@description('Memory of an instance, MB.')
@allowed([512, 2048, 4096])
param instanceMemoryMB int

@description('Most instances at once.')
@minValue(1)
@maxValue(1000)
param maximumInstanceCount int

@description('Whether instances are spread over availability zones; the region has to have them for this plan.')
param zoneRedundant bool

@description('Instances that are kept ready for HTTP calls.')
@minValue(0)
@maxValue(100)
param alwaysReadyHttpInstances int

@description('Calls that an instance serves at once before another one is started. Streams last long and cost little.')
@minValue(1)
@maxValue(1000)
param httpConcurrency int

@description('Resource ids of the subnets that apps reach out from, one a region; none: straight to the internet.')
param subnetIds array

@description('Which of the regions this is.')
param region int

@description('Whether the app answers on the internet.')
param publicAccess bool

@description('Id of the Front Door profile that calls have to come through; empty: any.')
param frontDoorId string

@description('The handler\'s own settings: what `\${NAME}` in spillway.toml stands for, and what the bindings name; name and value.')
param settings array

@description('Further settings, names and texts; they go before all others of the same name.')
param extraSettings object

@description('The Azure OpenAI resources: name, endpoint and id. Each becomes OPENAI_NAME_ENDPOINT and OPENAI_NAME_ID.')
param openAi array

@description('The same of resources that were there before.')
param existingOpenAi array

@description('Names of settings whose values are secrets of the same name (with - for _) in the vault.')
param vaultSettings array

@description('URL of the vault, with a slash at the end; empty where there is none.')
param vaultUri string

@description('Log Analytics workspace.')
param workspaceId string

@description('Tags.')
param tags object

var eventFunctions = ['batch', 'utilization', 'chargeback']
var httpFunctions = ['relay', 'relay_v1', 'relay_low', 'console', 'status', 'alert']
var disabledFunctions = runs == 'all' ? [] : (runs == 'http' ? eventFunctions : httpFunctions)

var hostSettings = [
  // The host's own storage, Application Insights and the triggers' connections, all by identity.
  { name: 'AzureWebJobsStorage__accountName', value: runtimeAccountName }
  { name: 'AzureWebJobsStorage__credential', value: 'managedidentity' }
  { name: 'AzureWebJobsStorage__clientId', value: identityClientId }
  { name: 'APPLICATIONINSIGHTS_CONNECTION_STRING', value: telemetryConnectionString }
  { name: 'APPLICATIONINSIGHTS_AUTHENTICATION_STRING', value: 'ClientId=${identityClientId};Authorization=AAD' }
  { name: 'ServiceBusConnection__credential', value: 'managedidentity' }
  { name: 'ServiceBusConnection__clientId', value: identityClientId }
  { name: 'EventHubConnection__credential', value: 'managedidentity' }
  { name: 'EventHubConnection__clientId', value: identityClientId }
  // The handler's identity: with a user-assigned one the platform has to be asked by name.
  { name: 'AZURE_CLIENT_ID', value: identityClientId }
]
var accounts = concat(openAi, existingOpenAi)
var endpointSettings = [for account in accounts: { name: 'OPENAI_${toUpper(replace(account.name, '-', '_'))}_ENDPOINT', value: account.endpoint }]
var idSettings = [for account in accounts: { name: 'OPENAI_${toUpper(replace(account.name, '-', '_'))}_ID', value: account.id }]
var secretSettings = [for setting in vaultSettings: { name: setting, value: '@Microsoft.KeyVault(SecretUri=${vaultUri}secrets/${replace(setting, '_', '-')}/)' }]
var disabledSettings = [for function in disabledFunctions: { name: 'AzureWebJobs.${function}.Disabled', value: 'true' }]
var ownSettings = concat(hostSettings, settings, endpointSettings, idSettings, secretSettings, disabledSettings)
var furtherSettings = [for setting in items(extraSettings): { name: setting.key, value: setting.value }]
// A further setting takes the place of one that is set here, so that each name is there once.
var allSettings = concat(filter(ownSettings, setting => !contains(extraSettings, setting.name)), furtherSettings)

resource plan 'Microsoft.Web/serverfarms@2024-04-01' = {
  // checkov:skip=CKV_AZURE_212: Flex Consumption scales by itself, and keeps instances ready by functionAppConfig.scaleAndConcurrency.alwaysReady
  // checkov:skip=CKV_AZURE_225: it is what the parameter zoneRedundant says; not every region has zones for Flex Consumption
  name: planName
  location: location
  tags: tags
  kind: 'functionapp'
  sku: {
    name: 'FC1'
    tier: 'FlexConsumption'
  }
  properties: {
    reserved: true
    zoneRedundant: zoneRedundant
  }
}

resource app 'Microsoft.Web/sites@2024-04-01' = {
  // checkov:skip=CKV_AZURE_78: Flex Consumption takes no ftpsState; FTP is off by its publishing credentials, below
  // checkov:skip=CKV_AZURE_17: callers show keys or tokens of Entra; OpenAI clients have no certificates
  // checkov:skip=CKV_AZURE_212: as for the plan
  // checkov:skip=CKV_AZURE_213: the platform takes sick Flex Consumption instances away itself; healthCheckPath is not for this plan
  // checkov:skip=CKV_AZURE_222: networkMode private disables public access; public is a choice, and callers show keys or tokens then too
  name: name
  location: location
  tags: union(tags, {
    'azd-service-name': serviceName
  })
  kind: 'functionapp,linux'
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: {
      '${identityId}': {}
    }
  }
  properties: {
    serverFarmId: plan.id
    httpsOnly: true
    // An instance is as good as any other; a cookie would pin clients to one.
    clientAffinityEnabled: false
    publicNetworkAccess: publicAccess ? 'Enabled' : 'Disabled'
    keyVaultReferenceIdentity: identityId
    virtualNetworkSubnetId: empty(subnetIds) ? null : subnetIds[region]
    siteConfig: {
      appSettings: allSettings
      minTlsVersion: '1.2'
      scmMinTlsVersion: '1.2'
      http20Enabled: true
      ipSecurityRestrictionsDefaultAction: empty(frontDoorId) ? 'Allow' : 'Deny'
      ipSecurityRestrictions: empty(frontDoorId) ? [] : [
        {
          name: 'front-door'
          priority: 100
          action: 'Allow'
          tag: 'ServiceTag'
          ipAddress: 'AzureFrontDoor.Backend'
          headers: {
            'x-azure-fdid': [frontDoorId]
          }
        }
        // Azure Monitor's webhooks, which do not come through Front Door; `/alerts` asks them for a token.
        {
          name: 'alerts'
          priority: 110
          action: 'Allow'
          tag: 'ServiceTag'
          ipAddress: 'ActionGroup'
        }
      ]
    }
    functionAppConfig: {
      deployment: {
        storage: {
          type: 'blobContainer'
          value: '${runtimeBlobEndpoint}${packageContainer}'
          authentication: {
            type: 'UserAssignedIdentity'
            userAssignedIdentityResourceId: identityId
          }
        }
      }
      scaleAndConcurrency: {
        instanceMemoryMB: instanceMemoryMB
        maximumInstanceCount: maximumInstanceCount
        alwaysReady: alwaysReadyHttpInstances == 0 || runs == 'events' ? [] : [
          {
            name: 'http'
            instanceCount: alwaysReadyHttpInstances
          }
        ]
        triggers: {
          http: {
            perInstanceConcurrency: httpConcurrency
          }
        }
      }
      runtime: {
        name: 'custom'
        version: '1.0'
      }
    }
  }

  // Publishing takes a token of Entra: user names and passwords are off.
  resource ftp 'basicPublishingCredentialsPolicies' = {
    name: 'ftp'
    properties: {
      allow: false
    }
  }

  resource scm 'basicPublishingCredentialsPolicies' = {
    name: 'scm'
    properties: {
      allow: false
    }
  }
}

resource logs 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  name: 'spillway'
  scope: app
  properties: {
    workspaceId: workspaceId
    // What functions log goes to Application Insights; this is what the platform says of the app.
    metrics: [
      {
        category: 'AllMetrics'
        enabled: true
      }
    ]
  }
}

@description('Resource id.')
output id string = app.id

@description('Name.')
output name string = app.name

@description('URL, without a slash at the end.')
output url string = 'https://${app.properties.defaultHostName}'
