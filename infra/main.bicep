metadata description = 'Spillway: an Azure OpenAI gateway as a set of Azure Functions, with what it keeps, reads and watches.'

targetScope = 'subscription'

// What it is called, and where it is.

@description('Name of the azd environment: names the resource group and everything in it.')
@minLength(1)
@maxLength(32)
param environmentName string

@description('Azure region of the gateway and of what it keeps.')
@minLength(1)
param location string

@description('Second region: its own function app for HTTP calls, on the same store. Empty: none.')
param secondaryLocation string = ''

@description('Further tags for everything.')
param tags object = {}

// Who.

@description('Object id of whoever deploys; gets the few roles that deploying takes. Empty: nobody.')
param principalId string = ''

@description('What that is.')
@allowed(['User', 'ServicePrincipal', 'Group'])
param principalType string = 'User'

@description('What tokens of callers have to be for (audience), for example api://spillway: an application that you register. Callers with keys need none.')
@minLength(1)
param audience string = 'api://spillway'

@description('Hash of the key of the first app that may call, as `spillway key new my-app` prints it: sha256: and 64 digits. The key itself is nowhere in here.')
@minLength(71)
@maxLength(71)
param firstAppKeyHash string

// What it calls.

@description('Azure OpenAI resources to make: name, location and deployments (name, model, version, sku, capacity). spillway.toml names them as OPENAI_NAME_ENDPOINT and OPENAI_NAME_ID. PTU deployments are paid by the hour from the moment they are made.')
param openAiAccounts array = []

@description('Azure OpenAI resources that are there already: name (for the settings), id (resource id) and ptu (whether it has PTU deployments to watch).')
param existingOpenAiAccounts array = []

@description('App settings that are secrets, such as keys of backends that know no Entra: names as in spillway.toml. A vault is made for them; the values are put in by hand.')
param vaultSettings array = []

@description('Whether apps may write and delete files and batches of the Azure OpenAI resources: the gateway then has Cognitive Services OpenAI Contributor there instead of User. That role may also make, change and delete deployments.')
param filesAndBatches bool = false

// The function apps.

@description('one: one app runs everything. split: HTTP calls and events run in two apps, from the same package.')
@allowed(['one', 'split'])
param appLayout string = 'one'

@description('Memory of an instance, MB.')
@allowed([512, 2048, 4096])
param instanceMemoryMB int = 2048

@description('Most instances of each app at once: a bound on what a flood can cost.')
@minValue(1)
@maxValue(1000)
param maximumInstanceCount int = 40

@description('Whether instances are spread over availability zones; the region has to have them for Flex Consumption.')
param zoneRedundant bool = false

@description('Instances kept ready for HTTP calls; 0: the first call after a quiet time waits for one to start.')
@minValue(0)
@maxValue(100)
param alwaysReadyHttpInstances int = 1

@description('Calls that an instance serves at once before another one is started.')
@minValue(1)
@maxValue(1000)
param httpConcurrency int = 200

@description('Id of the Front Door profile that calls have to come through; empty: they may come from everywhere.')
param frontDoorId string = ''

@description('Further app settings of all function apps: names and texts. They go before those that are set here. No secrets: vaultSettings are for these.')
param extraSettings object = {}

// What is kept.

@description('Redundancy of what the gateway keeps.')
@allowed(['Standard_LRS', 'Standard_ZRS', 'Standard_GRS', 'Standard_GZRS', 'Standard_RAGRS', 'Standard_RAGZRS'])
param storageSku string = 'Standard_ZRS'

@description('Days after which logged prompts are deleted; 0: never.')
@minValue(0)
@maxValue(36500)
param promptLifetimeDays int = 30

@description('Days after which kept answers are deleted; [cache] ttl_seconds says how long they are given.')
@minValue(1)
@maxValue(365)
param answerLifetimeDays int = 1

// Batch.

@description('Queues for replies of batch calls; the first one is what spillway.toml names as REPLY_QUEUE.')
@minLength(1)
param replyQueues array = ['results']

@description('Whether replies are read by session.')
param replySessions bool = false

@description('Deliveries after which a batch message is dead-lettered.')
@minValue(1)
@maxValue(2000)
param maxDeliveryCount int = 10

@description('How long batch messages and replies wait at most, ISO 8601.')
param messageLifetime string = 'P7D'

@description('Whether the gateway has Azure Service Bus Data Owner on the batch queue, so that the Functions platform and the console can read how long it is. That role may also change and delete the queue.')
param batchQueueOwner bool = false

@description('Messaging units of Service Bus Premium (only in networkMode private, or with premiumServiceBus).')
@allowed([1, 2, 4, 8, 16])
param messagingUnits int = 1

@description('Service Bus Premium also in networkMode public: messages up to 100 MB, throughput of its own.')
param premiumServiceBus bool = false

// Chargeback.

@description('Throughput units of Event Hubs at rest.')
@minValue(1)
@maxValue(40)
param eventHubThroughputUnits int = 1

@description('Throughput units that it may grow to by itself.')
@minValue(1)
@maxValue(40)
param eventHubMaximumThroughputUnits int = 4

@description('Partitions of the hub: as many instances can write chargeback rows at once. Can\'t be changed later.')
@minValue(1)
@maxValue(32)
param eventHubPartitions int = 8

@description('Days that usage events can be read again.')
@minValue(1)
@maxValue(7)
param eventRetentionDays int = 7

@description('Consumer groups for others who read usage events.')
param otherConsumerGroups array = ['export']

// Watching it.

@description('Days that logs are kept.')
@minValue(30)
@maxValue(730)
param logRetentionDays int = 30

@description('Gigabytes of logs a day after which nothing more is taken in; -1: no bound.')
param logDailyQuotaGb int = 5

@description('Addresses that get mail of alerts and of the budget.')
param alertEmails array = []

@description('Percent of a PTU deployment\'s utilization from which its alert fires.')
@minValue(1)
@maxValue(100)
param ptuAlertThreshold int = 90

@description('Failed invocations within five minutes from which an alert fires.')
@minValue(1)
param failedCallsThreshold int = 20

@description('Object id of the app registration of the audience\'s application, not of its service principal: Azure Monitor then calls the alert function with a token for it. Empty: it does not call.')
param alertApplicationObjectId string = ''

@description('Amount a month of the resource group from which mail is sent, in the billing currency; 0: no budget.')
@minValue(0)
param monthlyBudget int = 0

@description('First of the month that the budget begins with, yyyy-MM-01. Needed for a budget, and never to be changed: Azure refuses another start for a budget that is there.')
param budgetStart string = ''

// The network.

@description('public: reached over the internet, with keys or tokens. private: only through private endpoints in a virtual network.')
@allowed(['public', 'private'])
param networkMode string = 'public'

@description('Addresses of the virtual networks that are made, one a region.')
@minLength(2)
@maxLength(2)
param addressPrefixes array = ['10.80.0.0/24', '10.80.1.0/24']

@description('Within them: the subnets that the apps reach out from, /27 or larger.')
@minLength(2)
@maxLength(2)
param appSubnetPrefixes array = ['10.80.0.0/26', '10.80.1.0/26']

@description('Within them: the subnets of private endpoints, /27 or larger.')
@minLength(2)
@maxLength(2)
param endpointSubnetPrefixes array = ['10.80.0.64/26', '10.80.1.64/26']

@description('Subnets that are there already, one a region, delegated to Microsoft.App/environments; empty: networks are made.')
param existingAppSubnetIds array = []

@description('Subnet for private endpoints that is there already, in the first region; needed with existingAppSubnetIds.')
param existingEndpointSubnetId string = ''

@description('Resource id of the resource group (mostly the hub\'s) that has the private DNS zones; empty: they are made and linked.')
param existingDnsZonesGroupId string = ''

@description('Resource id of the hub\'s virtual network, to peer with; empty: none. Its owner makes the other side.')
param hubVirtualNetworkId string = ''

@description('Private address of the hub\'s firewall, which everything that leaves goes through; empty: straight out.')
param firewallAddress string = ''

@description('DNS servers of the networks that are made, for example the hub\'s; empty: Azure\'s own.')
param dnsServers array = []

// Names. Those of the whole world have a part that only this environment has.

var token = toLower(uniqueString(subscription().id, environmentName, location))
var allTags = union(tags, {
  'azd-env-name': environmentName
})
var batchQueue = 'batch'
var hub = 'chargeback'
var consumerGroup = 'spillway'
var packageContainer = 'package'
var dataName = 'stdata${token}'
var serviceBusName = 'sb-${token}'
var eventHubsName = 'eh-${token}'
var vaultName = 'kv-${token}'
var tableNames = [
  'affinity'
  'batches'
  'batchfiles'
  'chargeback'
  'chargebackrejects'
  'console'
  'instances'
  'prices'
  'reconciliation'
  'requests'
  'slots'
  'utilization'
]
var containerNames = [
  'answers'
  'config'
  'confighistory'
  'files'
  'prompts'
  'replies'
]

var promptLifetimes = promptLifetimeDays > 0 ? [{ container: 'prompts', days: promptLifetimeDays }] : []
var answerLifetimes = [{ container: 'answers', days: answerLifetimeDays }]

var isPrivate = networkMode == 'private'
var hasVault = !empty(vaultSettings)
// A row of roles.json with `when` is for a deployment that chose so; one without is for all.
var choices = [
  'always'
  filesAndBatches ? 'filesAndBatches' : 'not filesAndBatches'
  batchQueueOwner ? 'batchQueueOwner' : 'not batchQueueOwner'
]
var roles = filter(any(loadJsonContent('roles.json')), row => contains(choices, row.?when ?? 'always'))

// The apps: which functions each one runs, and where. Events run in the first region only; their
// state (locks, checkpoints) is one app's.
var regions = empty(secondaryLocation) ? [location] : [location, secondaryLocation]
var firstApp = [
  {
    name: 'func-${token}'
    plan: 'plan-${token}'
    runtime: 'strun${token}'
    service: 'gateway'
    runs: appLayout == 'one' ? 'all' : 'http'
    location: location
    region: 0
  }
]
var eventsApp = appLayout == 'one' ? [] : [
  {
    name: 'func-events-${token}'
    plan: 'plan-events-${token}'
    runtime: 'stevt${token}'
    service: 'events'
    runs: 'events'
    location: location
    region: 0
  }
]
var secondApp = empty(secondaryLocation) ? [] : [
  {
    name: 'func-second-${token}'
    plan: 'plan-second-${token}'
    runtime: 'stsec${token}'
    service: 'second'
    runs: 'http'
    location: secondaryLocation
    region: 1
  }
]
var appList = concat(firstApp, eventsApp, secondApp)

resource group 'Microsoft.Resources/resourceGroups@2024-03-01' = {
  name: 'rg-${environmentName}'
  location: location
  tags: allTags
}

module identity 'modules/identity.bicep' = {
  scope: group
  name: 'identity'
  params: {
    location: location
    name: 'id-${token}'
    tags: allTags
  }
}

module monitoring 'modules/monitoring.bicep' = {
  scope: group
  name: 'monitoring'
  params: {
    location: location
    workspaceName: 'log-${token}'
    componentName: 'appi-${token}'
    retentionInDays: logRetentionDays
    dailyQuotaGb: logDailyQuotaGb
    tags: allTags
  }
}

module data 'modules/storage.bicep' = {
  scope: group
  name: 'data'
  params: {
    location: location
    name: dataName
    sku: storageSku
    containers: containerNames
    tables: tableNames
    blobLifetimes: concat(promptLifetimes, answerLifetimes)
    publicAccess: !isPrivate
    workspaceId: monitoring.outputs.workspaceId
    tags: allTags
  }
}

// The hosts' own storage is apart from the gateway's data: the host asks for Owner of its blobs.
module runtime 'modules/storage.bicep' = [for app in appList: {
  scope: group
  name: 'runtime-${app.service}'
  params: {
    location: app.location
    name: app.runtime
    sku: 'Standard_LRS'
    containers: [packageContainer]
    tables: []
    publicAccess: !isPrivate
    workspaceId: monitoring.outputs.workspaceId
    tags: allTags
  }
}]

module serviceBus 'modules/service-bus.bicep' = {
  scope: group
  name: 'service-bus'
  params: {
    location: location
    name: serviceBusName
    // Private endpoints are Premium's.
    sku: isPrivate || premiumServiceBus ? 'Premium' : 'Standard'
    messagingUnits: messagingUnits
    batchQueue: batchQueue
    replyQueues: replyQueues
    replySessions: replySessions
    maxDeliveryCount: maxDeliveryCount
    messageLifetime: messageLifetime
    publicAccess: !isPrivate
    workspaceId: monitoring.outputs.workspaceId
    tags: allTags
  }
}

module eventHubs 'modules/event-hubs.bicep' = {
  scope: group
  name: 'event-hubs'
  params: {
    location: location
    name: eventHubsName
    throughputUnits: eventHubThroughputUnits
    maximumThroughputUnits: eventHubMaximumThroughputUnits
    hub: hub
    partitionCount: eventHubPartitions
    retentionInDays: eventRetentionDays
    consumerGroup: consumerGroup
    otherConsumerGroups: otherConsumerGroups
    publicAccess: !isPrivate
    workspaceId: monitoring.outputs.workspaceId
    tags: allTags
  }
}

module openAi 'modules/openai.bicep' = [for account in openAiAccounts: {
  scope: group
  name: 'openai-${account.name}'
  params: {
    location: account.location
    name: 'oai-${account.name}-${token}'
    deployments: account.deployments
    publicAccess: !isPrivate
    workspaceId: monitoring.outputs.workspaceId
    tags: allTags
  }
}]

module vault 'modules/key-vault.bicep' = if (hasVault) {
  scope: group
  name: 'key-vault'
  params: {
    location: location
    name: vaultName
    publicAccess: !isPrivate
    workspaceId: monitoring.outputs.workspaceId
    tags: allTags
  }
}

// Who may do what: infra/roles.json has each row's reason.

module access 'modules/access.bicep' = {
  scope: group
  name: 'access'
  params: {
    roles: roles
    gatewayPrincipalId: identity.outputs.principalId
    operatorPrincipalId: principalId
    operatorPrincipalType: principalType
    dataName: data.outputs.name
    runtimeNames: [for (app, i) in appList: runtime[i].outputs.name]
    serviceBusName: serviceBus.outputs.name
    batchQueue: batchQueue
    replyQueues: replyQueues
    eventHubsName: eventHubs.outputs.name
    hub: hub
    componentName: monitoring.outputs.componentName
    openAiNames: [for (account, i) in openAiAccounts: openAi[i].outputs.name]
    vaultName: vault.?outputs.name ?? ''
  }
}

// In whatever resource group and subscription the account is: whoever deploys needs the right to
// give roles there.
module existingOpenAi 'modules/access/openai.bicep' = [for account in existingOpenAiAccounts: {
  scope: resourceGroup(split(account.id, '/')[2], split(account.id, '/')[4])
  name: 'access-${environmentName}-${account.name}'
  params: {
    name: last(split(account.id, '/'))
    roles: filter(roles, row => row.on == 'openai')
    principalId: identity.outputs.principalId
  }
}]

// The network.

var makesNetworks = isPrivate && empty(existingAppSubnetIds)
var makesZones = makesNetworks && empty(existingDnsZonesGroupId)

var zones = {
  blob: 'privatelink.blob.${environment().suffixes.storage}'
  table: 'privatelink.table.${environment().suffixes.storage}'
  namespace: 'privatelink.servicebus.windows.net'
  account: 'privatelink.openai.azure.com'
  vault: 'privatelink.vaultcore.azure.net'
  sites: 'privatelink.azurewebsites.net'
}
var zonesGroupId = empty(existingDnsZonesGroupId) ? group.id : existingDnsZonesGroupId

module networks 'modules/networks.bicep' = if (makesNetworks) {
  scope: group
  name: 'networks'
  params: {
    regions: regions
    token: token
    addressPrefixes: addressPrefixes
    appSubnetPrefixes: appSubnetPrefixes
    endpointSubnetPrefixes: endpointSubnetPrefixes
    hubVirtualNetworkId: hubVirtualNetworkId
    firewallAddress: firewallAddress
    dnsServers: dnsServers
    zones: makesZones ? [zones.blob, zones.table, zones.namespace, zones.account, zones.vault, zones.sites] : []
    tags: allTags
  }
}

var storageType = '${group.id}/providers/Microsoft.Storage/storageAccounts'
var openAiType = '${group.id}/providers/Microsoft.CognitiveServices/accounts'
var dataEndpoints = [
  { name: 'data-blob', id: '${storageType}/${dataName}', part: 'blob' }
  { name: 'data-table', id: '${storageType}/${dataName}', part: 'table' }
  { name: 'service-bus', id: '${group.id}/providers/Microsoft.ServiceBus/namespaces/${serviceBusName}', part: 'namespace' }
  { name: 'event-hubs', id: '${group.id}/providers/Microsoft.EventHub/namespaces/${eventHubsName}', part: 'namespace' }
]
var runtimeEndpoints = [for app in appList: { name: 'runtime-${app.service}', id: '${storageType}/${app.runtime}', part: 'blob' }]
var appEndpoints = [for app in appList: { name: 'app-${app.service}', id: '${group.id}/providers/Microsoft.Web/sites/${app.name}', part: 'sites' }]
var openAiEndpoints = [for account in openAiAccounts: { name: 'openai-${account.name}', id: '${openAiType}/oai-${account.name}-${token}', part: 'account' }]
var existingOpenAiEndpoints = [for account in existingOpenAiAccounts: { name: 'openai-${account.name}', id: account.id, part: 'account' }]
var vaultEndpoints = !hasVault ? [] : [
  { name: 'vault', id: '${group.id}/providers/Microsoft.KeyVault/vaults/${vaultName}', part: 'vault' }
]
var targets = concat(dataEndpoints, runtimeEndpoints, appEndpoints, openAiEndpoints, existingOpenAiEndpoints, vaultEndpoints)

// The targets are known by their names beforehand, so what has to be there first is said.
module endpoints 'modules/private-endpoints.bicep' = if (isPrivate) {
  scope: group
  name: 'private-endpoints'
  params: {
    location: location
    token: token
    targets: targets
    zones: zones
    zonesGroupId: zonesGroupId
    subnetId: networks.?outputs.endpointSubnetId ?? existingEndpointSubnetId
    tags: allTags
  }
  dependsOn: [
    data
    runtime
    serviceBus
    eventHubs
    openAi
    vault
    apps
  ]
}

// The apps.

module apps 'modules/function-app.bicep' = [for (app, i) in appList: {
  scope: group
  name: 'app-${app.service}'
  params: {
    location: app.location
    name: app.name
    planName: app.plan
    serviceName: app.service
    runs: app.runs
    identityId: identity.outputs.id
    identityClientId: identity.outputs.clientId
    runtimeAccountName: runtime[i].outputs.name
    runtimeBlobEndpoint: runtime[i].outputs.blobEndpoint
    packageContainer: packageContainer
    telemetryConnectionString: monitoring.outputs.connectionString
    instanceMemoryMB: instanceMemoryMB
    maximumInstanceCount: maximumInstanceCount
    zoneRedundant: zoneRedundant
    alwaysReadyHttpInstances: alwaysReadyHttpInstances
    httpConcurrency: httpConcurrency
    subnetIds: !isPrivate ? [] : (networks.?outputs.appSubnetIds ?? existingAppSubnetIds)
    region: app.region
    publicAccess: !isPrivate
    frontDoorId: frontDoorId
    settings: [
      { name: 'REGION_NAME', value: app.location }
      { name: 'TENANT_ID', value: tenant().tenantId }
      { name: 'SPILLWAY_AUDIENCE', value: audience }
      { name: 'FIRST_APP_KEY_HASH', value: firstAppKeyHash }
      { name: 'TABLES_ENDPOINT', value: 'https://${dataName}.table.${environment().suffixes.storage}' }
      { name: 'BLOBS_ENDPOINT', value: 'https://${dataName}.blob.${environment().suffixes.storage}' }
      { name: 'CHARGEBACK_URL', value: 'https://${eventHubs.outputs.hostName}/${hub}' }
      { name: 'CHARGEBACK_EVENT_HUB', value: hub }
      { name: 'CHARGEBACK_CONSUMER_GROUP', value: consumerGroup }
      { name: 'EventHubConnection__fullyQualifiedNamespace', value: eventHubs.outputs.hostName }
      { name: 'BATCH_NAMESPACE', value: 'https://${serviceBus.outputs.hostName}' }
      { name: 'BATCH_QUEUE', value: batchQueue }
      { name: 'REPLY_QUEUE', value: replyQueues[0] }
      { name: 'ServiceBusConnection__fullyQualifiedNamespace', value: serviceBus.outputs.hostName }
    ]
    extraSettings: extraSettings
    openAi: [for (account, j) in openAiAccounts: {
      name: account.name
      endpoint: openAi[j].outputs.endpoint
      id: openAi[j].outputs.id
    }]
    existingOpenAi: [for (account, j) in existingOpenAiAccounts: {
      name: account.name
      endpoint: existingOpenAi[j].outputs.endpoint
      id: existingOpenAi[j].outputs.id
    }]
    vaultSettings: vaultSettings
    vaultUri: vault.?outputs.uri ?? ''
    workspaceId: monitoring.outputs.workspaceId
    tags: allTags
  }
  dependsOn: [
    // An app that starts before it may read its package or its secrets fails, and is not tried
    // again for minutes.
    access
  ]
}]

// Who hears of it.

var ptuAccounts = [for account in filter(openAiAccounts, account => contains(string(account.deployments), 'Provisioned')): { name: account.name, id: '${openAiType}/oai-${account.name}-${token}' }]
var existingPtuAccounts = [for account in filter(existingOpenAiAccounts, account => account.ptu): { name: account.name, id: account.id }]
var otherApps = [for app in skip(appList, 1): app.name]

module alerts 'modules/alerts.bicep' = {
  scope: group
  name: 'alerts'
  params: {
    name: 'spillway-${token}'
    emails: alertEmails
    // Azure Monitor calls from the internet: an app that is only reached privately can't be told.
    webhookUrl: isPrivate ? '' : '${apps[0].outputs.url}/alerts'
    webhookApplicationObjectId: alertApplicationObjectId
    webhookAudience: audience
    ptuAccounts: concat(ptuAccounts, existingPtuAccounts)
    ptuThreshold: ptuAlertThreshold
    serviceBusId: serviceBus.outputs.id
    eventHubsId: eventHubs.outputs.id
    componentId: monitoring.outputs.componentId
    failedCalls: failedCallsThreshold
    tags: allTags
  }
  dependsOn: [
    openAi
  ]
}

module budget 'modules/budget.bicep' = if (monthlyBudget > 0 && !empty(budgetStart) && !empty(alertEmails)) {
  scope: group
  name: 'budget'
  params: {
    name: 'spillway-${token}'
    amount: monthlyBudget
    startDate: budgetStart
    emails: alertEmails
  }
}

module workbook 'modules/workbook.bicep' = {
  scope: group
  name: 'workbook'
  params: {
    location: location
    title: 'Spillway ${environmentName}'
    componentId: monitoring.outputs.componentId
    tags: allTags
  }
}

// azd makes these its environment's values.

@description('Region.')
output AZURE_LOCATION string = location

@description('Tenant.')
output AZURE_TENANT_ID string = tenant().tenantId

@description('Resource group.')
output AZURE_RESOURCE_GROUP string = group.name

@description('Base URL: what apps put before /openai/... or /v1/...')
output SPILLWAY_URL string = apps[0].outputs.url

@description('Base URL in the second region; empty where there is none.')
output SPILLWAY_SECOND_URL string = empty(secondaryLocation) ? '' : (apps[length(appList) - 1].outputs.url)

@description('Name of the function app that azd deploys to.')
output SERVICE_GATEWAY_NAME string = apps[0].outputs.name

@description('Names of the further function apps, which a hook deploys the same package to; separated by spaces.')
output OTHER_APPS string = join(otherApps, ' ')

@description('Name of the storage account with what the gateway keeps.')
output DATA_ACCOUNT_NAME string = data.outputs.name

@description('Where spillway config puts a configuration: the value of BLOBS_ENDPOINT for it.')
output BLOBS_ENDPOINT string = data.outputs.blobEndpoint

@description('Host of the Service Bus namespace.')
output SERVICE_BUS_HOST string = serviceBus.outputs.hostName

@description('Name of the vault; empty where there is none.')
output KEY_VAULT_NAME string = vault.?outputs.name ?? ''

@description('Client id of the gateway\'s identity.')
output IDENTITY_CLIENT_ID string = identity.outputs.clientId
