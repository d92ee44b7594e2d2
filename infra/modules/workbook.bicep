metadata description = 'A workbook on the gateway\'s telemetry: calls, failures and what the handler warns of.'

@description('Azure region.')
param location string

@description('Title in the portal.')
param title string

@description('Resource id of the Application Insights component.')
param componentId string

@description('Tags.')
param tags object

resource workbook 'Microsoft.Insights/workbooks@2023-06-01' = {
  // A workbook's name has to be a GUID.
  name: guid(resourceGroup().id, 'spillway-workbook')
  location: location
  tags: tags
  kind: 'shared'
  properties: {
    displayName: title
    category: 'workbook'
    sourceId: componentId
    version: '1.0'
    serializedData: loadTextContent('../workbook.json')
  }
}
