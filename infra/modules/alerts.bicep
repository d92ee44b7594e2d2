metadata description = 'What somebody has to hear of: full PTU deployments, dead letters, throttled usage events, failing calls.'

@description('Start of the names.')
param name string

@description('Addresses that get mail.')
param emails array

@description('URL of the alert function; empty: no webhook.')
param webhookUrl string

@description('Object id of the Entra application (of its registration) that the webhook\'s tokens are for; empty: no webhook.')
param webhookApplicationObjectId string

@description('Identifier URI of that application.')
param webhookAudience string

@description('Azure OpenAI accounts with PTU deployments: name and id.')
param ptuAccounts array

@description('Percent of utilization of a PTU deployment from which the alert fires.')
@minValue(1)
@maxValue(100)
param ptuThreshold int

@description('Resource id of the Service Bus namespace.')
param serviceBusId string

@description('Resource id of the Event Hubs namespace.')
param eventHubsId string

@description('Resource id of the Application Insights component.')
param componentId string

@description('Failed calls within five minutes from which the alert fires.')
@minValue(1)
param failedCalls int

@description('Tags.')
param tags object

var hasWebhook = !empty(webhookUrl) && !empty(webhookApplicationObjectId)

resource people 'Microsoft.Insights/actionGroups@2023-01-01' = {
  name: '${name}-people'
  location: 'global'
  tags: tags
  properties: {
    enabled: true
    groupShortName: 'spillway'
    emailReceivers: [for email in emails: {
      name: email
      emailAddress: email
      useCommonAlertSchema: true
    }]
  }
}

// A group of its own: the function takes alerts on utilization only, and would refuse all others.
resource alertFunction 'Microsoft.Insights/actionGroups@2023-01-01' = if (hasWebhook) {
  name: '${name}-alert-function'
  location: 'global'
  tags: tags
  properties: {
    enabled: true
    groupShortName: 'spillway-fn'
    webhookReceivers: [
      {
        name: 'alert-function'
        serviceUri: webhookUrl
        useCommonAlertSchema: true
        // Azure Monitor calls with a token for this application, which the gateway checks.
        useAadAuth: true
        objectId: webhookApplicationObjectId
        identifierUri: webhookAudience
        tenantId: tenant().tenantId
      }
    ]
  }
}

var toPeople = [
  {
    actionGroupId: people.id
  }
]
var toAlertFunction = hasWebhook ? [
  {
    actionGroupId: alertFunction.id
  }
] : []

resource fullPtu 'Microsoft.Insights/metricAlerts@2018-03-01' = [for account in ptuAccounts: {
  name: '${name}-ptu-full-${account.name}'
  location: 'global'
  tags: tags
  properties: {
    description: 'A PTU deployment is full: calls spill over to pay-as-you-go, low-priority work is held back.'
    severity: 3
    enabled: true
    autoMitigate: true
    scopes: [account.id]
    evaluationFrequency: 'PT1M'
    windowSize: 'PT5M'
    criteria: {
      'odata.type': 'Microsoft.Azure.Monitor.SingleResourceMultipleMetricCriteria'
      allOf: [
        {
          criterionType: 'StaticThresholdCriterion'
          name: 'utilization'
          metricNamespace: 'Microsoft.CognitiveServices/accounts'
          metricName: 'AzureOpenAIProvisionedManagedUtilizationV2'
          operator: 'GreaterThan'
          threshold: ptuThreshold
          timeAggregation: 'Maximum'
          // One alert a deployment; and none fails to be made before there is a first value.
          dimensions: [
            {
              name: 'ModelDeploymentName'
              operator: 'Include'
              values: ['*']
            }
          ]
          skipMetricValidation: true
        }
      ]
    }
    actions: concat(toPeople, toAlertFunction)
  }
}]

resource deadLetters 'Microsoft.Insights/metricAlerts@2018-03-01' = {
  name: '${name}-dead-letters'
  location: 'global'
  tags: tags
  properties: {
    description: 'Batch messages could not be done and wait in a dead-letter queue for somebody to look.'
    severity: 2
    enabled: true
    autoMitigate: true
    scopes: [serviceBusId]
    evaluationFrequency: 'PT5M'
    windowSize: 'PT15M'
    criteria: {
      'odata.type': 'Microsoft.Azure.Monitor.SingleResourceMultipleMetricCriteria'
      allOf: [
        {
          criterionType: 'StaticThresholdCriterion'
          name: 'dead-letters'
          metricNamespace: 'Microsoft.ServiceBus/namespaces'
          metricName: 'DeadletteredMessages'
          operator: 'GreaterThan'
          threshold: 0
          timeAggregation: 'Maximum'
          dimensions: [
            {
              name: 'EntityName'
              operator: 'Include'
              values: ['*']
            }
          ]
          skipMetricValidation: true
        }
      ]
    }
    actions: toPeople
  }
}

resource throttledEvents 'Microsoft.Insights/metricAlerts@2018-03-01' = {
  name: '${name}-usage-events-throttled'
  location: 'global'
  tags: tags
  properties: {
    description: 'Event Hubs turns usage events away: it needs more throughput units. The relays write rows themselves meanwhile.'
    severity: 2
    enabled: true
    autoMitigate: true
    scopes: [eventHubsId]
    evaluationFrequency: 'PT5M'
    windowSize: 'PT15M'
    criteria: {
      'odata.type': 'Microsoft.Azure.Monitor.SingleResourceMultipleMetricCriteria'
      allOf: [
        {
          criterionType: 'StaticThresholdCriterion'
          name: 'throttled'
          metricNamespace: 'Microsoft.EventHub/namespaces'
          metricName: 'ThrottledRequests'
          operator: 'GreaterThan'
          threshold: 0
          timeAggregation: 'Total'
          skipMetricValidation: true
        }
      ]
    }
    actions: toPeople
  }
}

resource failing 'Microsoft.Insights/metricAlerts@2018-03-01' = {
  name: '${name}-calls-fail'
  location: 'global'
  tags: tags
  properties: {
    description: 'Invocations fail: the handler is down, or events and messages can\'t be processed.'
    severity: 1
    enabled: true
    autoMitigate: true
    scopes: [componentId]
    evaluationFrequency: 'PT1M'
    windowSize: 'PT5M'
    criteria: {
      'odata.type': 'Microsoft.Azure.Monitor.SingleResourceMultipleMetricCriteria'
      allOf: [
        {
          criterionType: 'StaticThresholdCriterion'
          name: 'failed'
          metricNamespace: 'microsoft.insights/components'
          metricName: 'requests/failed'
          operator: 'GreaterThanOrEqual'
          threshold: failedCalls
          timeAggregation: 'Count'
          skipMetricValidation: true
        }
      ]
    }
    actions: toPeople
  }
}
