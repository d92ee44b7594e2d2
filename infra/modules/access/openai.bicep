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

// A Foundry resource has several hosts; the one for OpenAI's API is among the named ones.
var openAiApi = 'OpenAI Language Model Instance API'

@description('URL of the OpenAI API, with a slash at the end, as Azure gives it.')
output endpoint string = contains(account.properties.endpoints, openAiApi) ? account.properties.endpoints[openAiApi] : account.properties.endpoint
