metadata description = 'The identity that the gateway has towards everything else. User-assigned, so that its roles are there before the app is, and outlive it.'

@description('Azure region.')
param location string

@description('Name of the identity.')
param name string

@description('Tags.')
param tags object

resource identity 'Microsoft.ManagedIdentity/userAssignedIdentities@2023-01-31' = {
  name: name
  location: location
  tags: tags
}

@description('Resource id.')
output id string = identity.id

@description('Client id: what AZURE_CLIENT_ID and the connections of the triggers name.')
output clientId string = identity.properties.clientId

@description('Object id: what roles are given to.')
output principalId string = identity.properties.principalId
