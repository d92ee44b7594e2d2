metadata description = 'A virtual network for networkMode private: a subnet that the function apps reach out from, one for private endpoints.'

@description('Azure region.')
param location string

@description('Name of the virtual network.')
param name string

@description('Its addresses.')
param addressPrefix string

@description('Those of the subnet that the apps reach out from.')
param appSubnetPrefix string

@description('Those of the subnet of private endpoints.')
param endpointSubnetPrefix string

@description('Address of the hub\'s firewall, which everything that leaves the apps\' subnet goes through; empty: straight out.')
param firewallAddress string

@description('DNS servers, for example the hub\'s; empty: Azure\'s own.')
param dnsServers array

@description('Tags.')
param tags object

resource appRules 'Microsoft.Network/networkSecurityGroups@2024-05-01' = {
  name: '${name}-apps'
  location: location
  tags: tags
  properties: {
    securityRules: [
      {
        // Apps are reached through their private endpoint, which is in the other subnet.
        name: 'nobody-comes-in'
        properties: {
          priority: 4000
          direction: 'Inbound'
          access: 'Deny'
          protocol: '*'
          sourceAddressPrefix: 'Internet'
          sourcePortRange: '*'
          destinationAddressPrefix: '*'
          destinationPortRange: '*'
        }
      }
    ]
  }
}

resource endpointRules 'Microsoft.Network/networkSecurityGroups@2024-05-01' = {
  name: '${name}-endpoints'
  location: location
  tags: tags
  properties: {
    securityRules: [
      {
        name: 'tls-from-the-network'
        properties: {
          priority: 100
          direction: 'Inbound'
          access: 'Allow'
          protocol: 'Tcp'
          sourceAddressPrefix: 'VirtualNetwork'
          sourcePortRange: '*'
          destinationAddressPrefix: '*'
          // 443: REST; 5671, 5672: AMQP, which the triggers of Service Bus and Event Hubs speak.
          destinationPortRanges: ['443', '5671', '5672']
        }
      }
      {
        name: 'nothing-else'
        properties: {
          priority: 4000
          direction: 'Inbound'
          access: 'Deny'
          protocol: '*'
          sourceAddressPrefix: '*'
          sourcePortRange: '*'
          destinationAddressPrefix: '*'
          destinationPortRange: '*'
        }
      }
    ]
  }
}

resource routes 'Microsoft.Network/routeTables@2024-05-01' = {
  name: '${name}-apps'
  location: location
  tags: tags
  properties: {
    disableBgpRoutePropagation: !empty(firewallAddress)
    routes: empty(firewallAddress) ? [] : [
      {
        name: 'everything-through-the-firewall'
        properties: {
          addressPrefix: '0.0.0.0/0'
          nextHopType: 'VirtualAppliance'
          nextHopIpAddress: firewallAddress
        }
      }
    ]
  }
}

resource network 'Microsoft.Network/virtualNetworks@2024-05-01' = {
  name: name
  location: location
  tags: tags
  properties: {
    addressSpace: {
      addressPrefixes: [addressPrefix]
    }
    dhcpOptions: {
      dnsServers: dnsServers
    }
    // Within the network, so that an update does not take the subnets away and put them back.
    subnets: [
      {
        name: 'apps'
        properties: {
          addressPrefix: appSubnetPrefix
          networkSecurityGroup: {
            id: appRules.id
          }
          routeTable: {
            id: routes.id
          }
          delegations: [
            {
              name: 'flex-consumption'
              properties: {
                serviceName: 'Microsoft.App/environments'
              }
            }
          ]
        }
      }
      {
        name: 'endpoints'
        properties: {
          addressPrefix: endpointSubnetPrefix
          privateEndpointNetworkPolicies: 'Enabled'
          networkSecurityGroup: {
            id: endpointRules.id
          }
        }
      }
    ]
  }

  resource apps 'subnets' existing = {
    name: 'apps'
  }

  resource endpoints 'subnets' existing = {
    name: 'endpoints'
  }
}

@description('Resource id of the virtual network.')
output id string = network.id

@description('Name of the virtual network.')
output name string = network.name

@description('Resource id of the subnet that the apps reach out from.')
output appSubnetId string = network::apps.id

@description('Resource id of the subnet of the private endpoints.')
output endpointSubnetId string = network::endpoints.id
