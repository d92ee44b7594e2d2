metadata description = 'Who may do what within the resource group: picks the rows of infra/roles.json for each resource. The rows have the reasons.'

@description('The table of roles.')
param roles array

@description('Object id of the gateway\'s identity.')
param gatewayPrincipalId string

@description('Object id of whoever deploys; empty: nobody gets the operator\'s roles.')
param operatorPrincipalId string

@description('What the operator is.')
@allowed(['User', 'ServicePrincipal', 'Group'])
param operatorPrincipalType string

@description('Name of the storage account of the gateway\'s data.')
param dataName string

@description('Names of the storage accounts of the Functions hosts.')
param runtimeNames array

@description('Name of the Service Bus namespace.')
param serviceBusName string

@description('Name of the batch queue.')
param batchQueue string

@description('Names of the reply queues.')
param replyQueues array

@description('Name of the Event Hubs namespace.')
param eventHubsName string

@description('Name of the hub.')
param hub string

@description('Name of the Application Insights component.')
param componentName string

@description('Names of the Azure OpenAI accounts of this resource group.')
param openAiNames array

@description('Name of the vault; empty where there is none.')
param vaultName string

var gatewayRoles = filter(roles, row => row.to == 'gateway')
var operatorRoles = filter(roles, row => row.to == 'operator' && !empty(operatorPrincipalId))

module data 'access/storage.bicep' = {
  name: 'access-data'
  params: {
    name: dataName
    roles: filter(gatewayRoles, row => row.on == 'data')
    principalId: gatewayPrincipalId
  }
}

module operatorData 'access/storage.bicep' = {
  name: 'access-operator-data'
  params: {
    name: dataName
    roles: filter(operatorRoles, row => row.on == 'data')
    principalId: operatorPrincipalId
    principalType: operatorPrincipalType
  }
}

module runtime 'access/storage.bicep' = [for name in runtimeNames: {
  name: 'access-${name}'
  params: {
    name: name
    roles: filter(gatewayRoles, row => row.on == 'runtime')
    principalId: gatewayPrincipalId
  }
}]

module operatorRuntime 'access/storage.bicep' = [for name in runtimeNames: {
  name: 'access-operator-${name}'
  params: {
    name: name
    roles: filter(operatorRoles, row => row.on == 'runtime')
    principalId: operatorPrincipalId
    principalType: operatorPrincipalType
  }
}]

module batch 'access/queue.bicep' = {
  name: 'access-batch'
  params: {
    namespaceName: serviceBusName
    name: batchQueue
    roles: filter(gatewayRoles, row => row.on == 'batch')
    principalId: gatewayPrincipalId
  }
}

module replies 'access/queue.bicep' = [for queue in replyQueues: {
  name: 'access-reply-${queue}'
  params: {
    namespaceName: serviceBusName
    name: queue
    roles: filter(gatewayRoles, row => row.on == 'replies')
    principalId: gatewayPrincipalId
  }
}]

module chargeback 'access/hub.bicep' = {
  name: 'access-chargeback'
  params: {
    namespaceName: eventHubsName
    name: hub
    roles: filter(gatewayRoles, row => row.on == 'chargeback')
    principalId: gatewayPrincipalId
  }
}

module telemetry 'access/telemetry.bicep' = {
  name: 'access-telemetry'
  params: {
    name: componentName
    roles: filter(gatewayRoles, row => row.on == 'telemetry')
    principalId: gatewayPrincipalId
  }
}

module openAi 'access/openai.bicep' = [for name in openAiNames: {
  name: 'access-${name}'
  params: {
    name: name
    roles: filter(gatewayRoles, row => row.on == 'openai')
    principalId: gatewayPrincipalId
  }
}]

module vault 'access/vault.bicep' = if (!empty(vaultName)) {
  name: 'access-vault'
  params: {
    name: vaultName
    roles: filter(gatewayRoles, row => row.on == 'vault')
    principalId: gatewayPrincipalId
  }
}

module operatorVault 'access/vault.bicep' = if (!empty(vaultName)) {
  name: 'access-operator-vault'
  params: {
    name: vaultName
    roles: filter(operatorRoles, row => row.on == 'vault')
    principalId: operatorPrincipalId
    principalType: operatorPrincipalType
  }
}
