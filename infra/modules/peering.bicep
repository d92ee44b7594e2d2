metadata description = 'One side of a peering of two virtual networks. Whoever owns the other network makes the other side.'

@description('Name of the virtual network on this side.')
param networkName string

@description('Name of the peering.')
param name string

@description('Resource id of the virtual network on the other side.')
param remoteNetworkId string

resource network 'Microsoft.Network/virtualNetworks@2024-05-01' existing = {
  name: networkName
}

resource peering 'Microsoft.Network/virtualNetworks/virtualNetworkPeerings@2024-05-01' = {
  parent: network
  name: name
  properties: {
    allowForwardedTraffic: true
    allowGatewayTransit: false
    allowVirtualNetworkAccess: true
    useRemoteGateways: false
    remoteVirtualNetwork: {
      id: remoteNetworkId
    }
  }
}
