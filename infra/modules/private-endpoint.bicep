metadata description = 'A private endpoint of one resource, and its names in the private DNS zones.'

@description('Azure region: that of the subnet.')
param location string

@description('Name of the endpoint.')
param name string

@description('Resource id of what it leads to.')
param targetId string

@description('Which part of it, for example blob, table, namespace, account, vault or sites.')
param groupId string

@description('Resource id of the subnet that it lies in.')
param subnetId string

@description('Resource ids of the private DNS zones that name it.')
param zoneIds array

@description('Tags.')
param tags object

resource endpoint 'Microsoft.Network/privateEndpoints@2024-05-01' = {
  name: name
  location: location
  tags: tags
  properties: {
    subnet: {
      id: subnetId
    }
    customNetworkInterfaceName: '${name}-nic'
    privateLinkServiceConnections: [
      {
        name: name
        properties: {
          privateLinkServiceId: targetId
          groupIds: [groupId]
        }
      }
    ]
  }
}

resource names 'Microsoft.Network/privateEndpoints/privateDnsZoneGroups@2024-05-01' = {
  parent: endpoint
  name: 'default'
  properties: {
    privateDnsZoneConfigs: [for (zoneId, i) in zoneIds: {
      name: 'zone-${i}'
      properties: {
        privateDnsZoneId: zoneId
      }
    }]
  }
}
