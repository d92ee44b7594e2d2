metadata description = 'The queue that batch apps feed, and the queues that their replies go to.'

@description('Azure region.')
param location string

@description('Name of the namespace.')
param name string

@description('Premium has private endpoints and messages up to 100 MB.')
@allowed(['Standard', 'Premium'])
param sku string

@description('Messaging units of Premium.')
@allowed([1, 2, 4, 8, 16])
param messagingUnits int

@description('Name of the queue with the calls to make.')
param batchQueue string

@description('Names of the queues for replies; `[batch] reply_queues` has to list them.')
param replyQueues array

@description('Whether replies are read by session: a reader then gets only the replies of its own session id.')
param replySessions bool

@description('Deliveries after which a message is dead-lettered.')
@minValue(1)
@maxValue(2000)
param maxDeliveryCount int

@description('How long a message waits at most, ISO 8601.')
param messageLifetime string

@description('Whether the namespace answers on the internet (with a token of Entra even then).')
param publicAccess bool

@description('Log Analytics workspace.')
param workspaceId string

@description('Tags.')
param tags object

resource namespace 'Microsoft.ServiceBus/namespaces@2024-01-01' = {
  name: name
  location: location
  tags: tags
  sku: {
    name: sku
    tier: sku
    capacity: sku == 'Premium' ? messagingUnits : null
  }
  properties: {
    disableLocalAuth: true
    minimumTlsVersion: '1.2'
    publicNetworkAccess: publicAccess ? 'Enabled' : 'Disabled'
    premiumMessagingPartitions: sku == 'Premium' ? 1 : null
  }
}

resource batch 'Microsoft.ServiceBus/namespaces/queues@2024-01-01' = {
  parent: namespace
  name: batchQueue
  properties: {
    // The longest there is: host.json renews the lock beyond it while a call is being made.
    lockDuration: 'PT5M'
    maxDeliveryCount: maxDeliveryCount
    // Must be set when the queue is made: an app that sends a message twice has it done once.
    requiresDuplicateDetection: true
    duplicateDetectionHistoryTimeWindow: 'PT1H'
    requiresSession: false
    defaultMessageTimeToLive: messageLifetime
    deadLetteringOnMessageExpiration: true
    maxSizeInMegabytes: 5120
    maxMessageSizeInKilobytes: sku == 'Premium' ? 102400 : null
  }
}

resource replies 'Microsoft.ServiceBus/namespaces/queues@2024-01-01' = [for queue in replyQueues: {
  parent: namespace
  name: queue
  properties: {
    lockDuration: 'PT1M'
    maxDeliveryCount: maxDeliveryCount
    // The gateway sends a reply again when it can't know whether the first one arrived.
    requiresDuplicateDetection: true
    duplicateDetectionHistoryTimeWindow: 'PT1H'
    requiresSession: replySessions
    defaultMessageTimeToLive: messageLifetime
    deadLetteringOnMessageExpiration: true
    maxSizeInMegabytes: 5120
    maxMessageSizeInKilobytes: sku == 'Premium' ? 102400 : null
  }
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
