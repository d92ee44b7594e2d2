metadata description = 'Roles on a queue of Service Bus.'

@description('Name of the namespace.')
param namespaceName string

@description('Name of the queue.')
param name string

@description('The rows of infra/roles.json that are for this principal here.')
param roles array

@description('Object id of the principal.')
param principalId string

@description('What the principal is.')
@allowed(['User', 'ServicePrincipal', 'Group'])
param principalType string = 'ServicePrincipal'

resource namespace 'Microsoft.ServiceBus/namespaces@2024-01-01' existing = {
  name: namespaceName
}

resource queue 'Microsoft.ServiceBus/namespaces/queues@2024-01-01' existing = {
  parent: namespace
  name: name
}

resource assignments 'Microsoft.Authorization/roleAssignments@2022-04-01' = [for row in roles: {
  name: guid(queue.id, principalId, row.id)
  scope: queue
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', row.id)
    principalId: principalId
    principalType: principalType
    description: row.reason
  }
}]
