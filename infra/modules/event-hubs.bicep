metadata description = 'The stream of usage events, which the chargeback function reads and others may read too.'

@description('Azure region.')
param location string

@description('Name of the namespace.')
param name string

@description('Throughput units at rest: each takes 1 MB or 1,000 events a second.')
@minValue(1)
@maxValue(40)
param throughputUnits int

@description('Throughput units that it may grow to by itself.')
@minValue(1)
@maxValue(40)
param maximumThroughputUnits int

@description('Name of the hub.')
param hub string

@description('Partitions: as many instances can read at once. Can\'t be changed later in the tier Standard.')
@minValue(1)
@maxValue(32)
param partitionCount int

@description('Days that events are kept.')
@minValue(1)
@maxValue(7)
param retentionInDays int

@description('Consumer group of the chargeback function.')
param consumerGroup string

@description('Consumer groups for others who read usage events.')
param otherConsumerGroups array

@description('Whether the namespace answers on the internet (with a token of Entra even then).')
param publicAccess bool

@description('Log Analytics workspace.')
param workspaceId string

@description('Tags.')
param tags object

resource namespace 'Microsoft.EventHub/namespaces@2024-01-01' = {
  name: name
  location: location
  tags: tags
  sku: {
    name: 'Standard'
    tier: 'Standard'
    capacity: throughputUnits
  }
  properties: {
    disableLocalAuth: true
    minimumTlsVersion: '1.2'
    isAutoInflateEnabled: maximumThroughputUnits > throughputUnits
    maximumThroughputUnits: maximumThroughputUnits > throughputUnits ? maximumThroughputUnits : 0
    publicNetworkAccess: publicAccess ? 'Enabled' : 'Disabled'
  }
}

resource chargeback 'Microsoft.EventHub/namespaces/eventhubs@2024-01-01' = {
  parent: namespace
  name: hub
  properties: {
    partitionCount: partitionCount
    messageRetentionInDays: retentionInDays
  }
}

// One after the other: the service refuses changes of one hub at the same time.
@batchSize(1)
resource groups 'Microsoft.EventHub/namespaces/eventhubs/consumergroups@2024-01-01' = [for group in concat([consumerGroup], otherConsumerGroups): {
  parent: chargeback
  name: group
}]

resource logs 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  name: 'spillway'
  scope: namespace
  properties: {
    workspaceId: workspaceId
    logs: [
      {
        categoryGroup: 'allLogs'
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
output id string = namespace.id

@description('Name.')
output name string = namespace.name

@description('Host name, as the trigger wants it.')
output hostName string = replace(replace(replace(namespace.properties.serviceBusEndpoint, 'https://', ''), ':443', ''), '/', '')
