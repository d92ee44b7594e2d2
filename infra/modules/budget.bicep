metadata description = 'A monthly budget of the resource group: mail at 80 % and 100 % spent, and when 100 % is to be expected.'

@description('Name of the budget.')
param name string

@description('Amount a month, in the billing currency.')
param amount int

@description('First of the month that it begins with, yyyy-MM-01. A budget that is there keeps its own: give the same again.')
param startDate string

@description('Addresses that get mail.')
param emails array

resource budget 'Microsoft.Consumption/budgets@2023-11-01' = {
  name: name
  properties: {
    category: 'Cost'
    amount: amount
    timeGrain: 'Monthly'
    timePeriod: {
      startDate: startDate
    }
    notifications: {
      mostlySpent: {
        enabled: true
        operator: 'GreaterThanOrEqualTo'
        threshold: 80
        thresholdType: 'Actual'
        contactEmails: emails
      }
      spent: {
        enabled: true
        operator: 'GreaterThanOrEqualTo'
        threshold: 100
        thresholdType: 'Actual'
        contactEmails: emails
      }
      expected: {
        enabled: true
        operator: 'GreaterThanOrEqualTo'
        threshold: 100
        thresholdType: 'Forecasted'
        contactEmails: emails
      }
    }
  }
}
