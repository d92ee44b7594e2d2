metadata description = 'Private DNS zones, linked to a virtual network.'

@description('Names of the zones.')
param zones array

@description('Resource ids of the virtual networks that look names up in them.')
param virtualNetworkIds array

@description('Tags.')
param tags object

resource dnsZones 'Microsoft.Network/privateDnsZones@2020-06-01' = [for zone in zones: {
  name: zone
  location: 'global'
  tags: tags
}]

// Every zone with every network: zone i / n with network i % n.
resource links 'Microsoft.Network/privateDnsZones/virtualNetworkLinks@2020-06-01' = [for i in range(0, length(zones) * length(virtualNetworkIds)): {
  parent: dnsZones[i / length(virtualNetworkIds)]
  name: uniqueString(virtualNetworkIds[i % length(virtualNetworkIds)])
  location: 'global'
  tags: tags
  properties: {
    registrationEnabled: false
    virtualNetwork: {
      id: virtualNetworkIds[i % length(virtualNetworkIds)]
    }
  }
}]
