metadata description = 'Roles on a vault.'

@description('Name of the vault.')
param name string

@description('The rows of infra/roles.json that are for this principal here.')
param roles array

@description('Object id of the principal.')
param principalId string

@description('What the principal is.')
@allowed(['User', 'ServicePrincipal', 'Group'])
param principalType string = 'ServicePrincipal'

resource vault 'Microsoft.KeyVault/vaults@2023-07-01' existing = {
  name: name
}

resource assignments 'Microsoft.Authorization/roleAssignments@2022-04-01' = [for row in roles: {
  name: guid(vault.id, principalId, row.id)
  scope: vault
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', row.id)
    principalId: principalId
    principalType: principalType
    description: row.reason
  }
}]
