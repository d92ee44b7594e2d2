metadata description = 'A private endpoint for each of the gateway\'s services.'

@description('Azure region: that of the subnet.')
param location string

@description('Part of the names that only this environment has.')
param token string

@description('What they lead to: name, id and part (which of the zones, too).')
param targets array

@description('Private DNS zone by part.')
param zones object

@description('Resource id of the resource group that has the zones.')
param zonesGroupId string

@description('Resource id of the subnet.')
param subnetId string

@description('Tags.')
param tags object

module endpoints 'private-endpoint.bicep' = [for target in targets: {
  name: 'endpoint-${target.name}'
  params: {
    location: location
    name: 'pe-${target.name}-${token}'
    targetId: target.id
    // The parts are called as private link calls them.
    groupId: target.part
    subnetId: subnetId
    zoneIds: ['${zonesGroupId}/providers/Microsoft.Network/privateDnsZones/${zones[target.part]}']
    tags: tags
  }
}]
