metadata description = 'Roles on an Azure OpenAI resource, which may lie in another resource group or subscription, and what the gateway has to know of it.'

@description('Name of the account.')
param name string

@description('The rows of infra/roles.json that are for this principal here.')
param roles array

@description('Object id of the principal.')
param principalId string

@description('What the principal is.')
@allowed(['User', 'ServicePrincipal', 'Group'])
param principalType string = 'ServicePrincipal'

resource account 'Microsoft.CognitiveServices/accounts@2024-10-01' existing = {
  name: name
}

resource assignments 'Microsoft.Authorization/roleAssignments@2022-04-01' = [for row in roles: {
  name: guid(account.id, principalId, row.id)
  scope: account
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', row.id)
    principalId: principalId
    principalType: principalType
    description: row.reason
  }
}]

@description('Resource id.')
output id string = account.id

@description('URL, with a slash at the end, as Azure gives it.')
output endpoint string = account.properties.endpoint
