metadata description = 'A storage account without shared keys, with its containers and tables.'

@description('Azure region.')
param location string

@description('Name of the account: 3 to 24 lower-case letters and digits.')
@minLength(3)
@maxLength(24)
param name string

@description('Redundancy.')
@allowed(['Standard_LRS', 'Standard_ZRS', 'Standard_GRS', 'Standard_GZRS', 'Standard_RAGRS', 'Standard_RAGZRS'])
param sku string

@description('Names of the blob containers.')
param containers array

@description('Names of the tables.')
param tables array

@description('Days that a deleted blob can be brought back.')
@minValue(1)
@maxValue(365)
param deleteRetentionDays int = 7

@description('Containers whose blobs are deleted after some days: objects with container and days.')
param blobLifetimes array = []

@description('Whether the account answers on the internet (with a token of Entra even then).')
param publicAccess bool

@description('Log Analytics workspace for who wrote and deleted what.')
param workspaceId string

@description('Tags.')
param tags object

resource account 'Microsoft.Storage/storageAccounts@2024-01-01' = {
  // checkov:skip=CKV_AZURE_35: networkMode private denies; in public mode apps outside a network have no address that could be allowed, and there are no keys
  // checkov:skip=CKV_AZURE_206: the parameter says: zone-redundant for the gateway's data by default; a host's locks and packages are made again
  name: name
  location: location
  tags: tags
  kind: 'StorageV2'
  sku: {
    name: sku
  }
  properties: {
    accessTier: 'Hot'
    allowBlobPublicAccess: false
    allowCrossTenantReplication: false
    allowSharedKeyAccess: false
    defaultToOAuthAuthentication: true
    minimumTlsVersion: 'TLS1_2'
    supportsHttpsTrafficOnly: true
    publicNetworkAccess: publicAccess ? 'Enabled' : 'Disabled'
    networkAcls: {
      bypass: 'None'
      defaultAction: publicAccess ? 'Allow' : 'Deny'
    }
  }
}

resource blobs 'Microsoft.Storage/storageAccounts/blobServices@2024-01-01' = {
  parent: account
  name: 'default'
  properties: {
    deleteRetentionPolicy: {
      enabled: true
      days: deleteRetentionDays
    }
    containerDeleteRetentionPolicy: {
      enabled: true
      days: deleteRetentionDays
    }
  }
}

resource blobContainers 'Microsoft.Storage/storageAccounts/blobServices/containers@2024-01-01' = [for container in containers: {
  parent: blobs
  name: container
  properties: {
    publicAccess: 'None'
  }
}]

resource tableService 'Microsoft.Storage/storageAccounts/tableServices@2024-01-01' = {
  parent: account
  name: 'default'
}

// The gateway makes missing tables itself; made here, a missing role shows at the deployment.
resource accountTables 'Microsoft.Storage/storageAccounts/tableServices/tables@2024-01-01' = [for table in tables: {
  parent: tableService
  name: table
}]

resource lifecycle 'Microsoft.Storage/storageAccounts/managementPolicies@2024-01-01' = if (!empty(blobLifetimes)) {
  parent: account
  name: 'default'
  properties: {
    policy: {
      rules: [for lifetime in blobLifetimes: {
        name: 'delete-old-${lifetime.container}'
        enabled: true
        type: 'Lifecycle'
        definition: {
          filters: {
            blobTypes: ['blockBlob', 'appendBlob']
            prefixMatch: ['${lifetime.container}/']
          }
          actions: {
            baseBlob: {
              delete: {
                daysAfterModificationGreaterThan: lifetime.days
              }
            }
          }
        }
      }]
    }
  }
  dependsOn: [
    // The service takes a policy only once the blob service has its settings.
    blobs
  ]
}

resource blobLogs 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  name: 'spillway'
  scope: blobs
  properties: {
    workspaceId: workspaceId
    logs: [
      {
        category: 'StorageDelete'
        enabled: true
      }
    ]
    metrics: [
      {
        category: 'Transaction'
        enabled: true
      }
    ]
  }
}

resource tableLogs 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  name: 'spillway'
  scope: tableService
  properties: {
    workspaceId: workspaceId
    logs: [
      {
        category: 'StorageDelete'
        enabled: true
      }
    ]
    metrics: [
      {
        category: 'Transaction'
        enabled: true
      }
    ]
  }
}

@description('Resource id.')
output id string = account.id

@description('Name.')
output name string = account.name

@description('URL of the blobs, with a slash at the end, as Azure gives it.')
output blobEndpoint string = account.properties.primaryEndpoints.blob

@description('URL of the tables, with a slash at the end, as Azure gives it.')
output tableEndpoint string = account.properties.primaryEndpoints.table
