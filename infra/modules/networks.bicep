metadata description = 'What networkMode private needs beside the endpoints: a virtual network a region, peerings, private DNS zones.'

@description('Azure regions; a network is made in each.')
param regions array

@description('Part of the names that only this environment has.')
param token string

@description('Addresses of the networks, one a region.')
param addressPrefixes array

@description('Those of the subnets that the apps reach out from.')
param appSubnetPrefixes array

@description('Those of the subnets of private endpoints.')
param endpointSubnetPrefixes array

@description('Resource id of the hub\'s virtual network, to peer with; empty: none.')
param hubVirtualNetworkId string

@description('Private address of the hub\'s firewall; empty: straight out.')
param firewallAddress string

@description('DNS servers; empty: Azure\'s own.')
param dnsServers array

@description('Private DNS zones to make and to link with the networks; none where the hub has them.')
param zones array

@description('Tags.')
param tags object

module networks 'network.bicep' = [for (region, i) in regions: {
  name: 'network-${i}'
  params: {
    location: region
    name: 'vnet-${i}-${token}'
    addressPrefix: addressPrefixes[i]
    appSubnetPrefix: appSubnetPrefixes[i]
    endpointSubnetPrefix: endpointSubnetPrefixes[i]
    firewallAddress: firewallAddress
    dnsServers: dnsServers
    tags: tags
  }
}]

module hubPeerings 'peering.bicep' = [for (region, i) in (empty(hubVirtualNetworkId) ? [] : regions): {
  name: 'peering-hub-${i}'
  params: {
    networkName: networks[i].outputs.name
    name: 'to-hub'
    remoteNetworkId: hubVirtualNetworkId
  }
}]

// The second region reaches the endpoints in the first one's network.
module regionPeerings 'peering.bicep' = [for (region, i) in (length(regions) == 2 ? regions : []): {
  name: 'peering-regions-${i}'
  params: {
    networkName: networks[i].outputs.name
    name: 'to-other-region'
    remoteNetworkId: networks[1 - i].outputs.id
  }
}]

module dns 'private-dns.bicep' = if (!empty(zones)) {
  name: 'private-dns'
  params: {
    zones: zones
    virtualNetworkIds: [for (region, i) in regions: networks[i].outputs.id]
    tags: tags
  }
}

@description('Resource ids of the subnets that the apps reach out from, one a region.')
output appSubnetIds array = [for (region, i) in regions: networks[i].outputs.appSubnetId]

@description('Resource id of the subnet of private endpoints, in the first region.')
output endpointSubnetId string = networks[0].outputs.endpointSubnetId
