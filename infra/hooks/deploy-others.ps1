# Deploys the package to the function apps beside the one that azd deploys to. azd gives the
# outputs of infra/main.bicep as variables.
$ErrorActionPreference = 'Stop'
$PSNativeCommandUseErrorActionPreference = $true
Set-Location (Join-Path $PSScriptRoot '../..')

if (-not $env:OTHER_APPS) { exit 0 }
if (-not (Get-Command az -ErrorAction SilentlyContinue)) {
    throw "az (the Azure CLI) is needed to deploy to: $env:OTHER_APPS"
}
$package = 'dist/app.zip'
if (Test-Path $package) { Remove-Item $package }
# Without permissions, which such an archive can't hold; the host makes the handler executable itself.
Compress-Archive -Path dist/app/* -DestinationPath $package
foreach ($app in $env:OTHER_APPS.Split(' ')) {
    az functionapp deployment source config-zip --subscription $env:AZURE_SUBSCRIPTION_ID --resource-group $env:AZURE_RESOURCE_GROUP --name $app --src $package --output none
    Write-Output "deployed to $app"
}
