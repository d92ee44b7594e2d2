metadata description = 'Roles on Application Insights.'

@description('Name of the component.')
param name string

@description('The rows of infra/roles.json that are for this principal here.')
param roles array

@description('Object id of the principal.')
param principalId string

@description('What the principal is.')
@allowed(['User', 'ServicePrincipal', 'Group'])
param principalType string = 'ServicePrincipal'

resource component 'Microsoft.Insights/components@2020-02-02' existing = {
  name: name
}

resource assignments 'Microsoft.Authorization/roleAssignments@2022-04-01' = [for row in roles: {
  name: guid(component.id, principalId, row.id)
  scope: component
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', row.id)
    principalId: principalId
    principalType: principalType
    description: row.reason
  }
}]
