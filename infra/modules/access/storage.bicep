metadata description = 'Roles on a storage account.'

@description('Name of the account.')
param name string

@description('The rows of infra/roles.json that are for this principal here.')
param roles array

@description('Object id of the principal.')
param principalId string

@description('What the principal is.')
@allowed(['User', 'ServicePrincipal', 'Group'])
param principalType string = 'ServicePrincipal'

resource account 'Microsoft.Storage/storageAccounts@2024-01-01' existing = {
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
    condition: row.?condition
    conditionVersion: contains(row, 'condition') ? '2.0' : null
  }
}]
