#!/usr/bin/env bash
# Deploys the package to the function apps beside the one that azd deploys to. azd gives the
# outputs of infra/main.bicep as variables.
set -euo pipefail
cd "$(dirname "$0")/../.."

if [ -z "${OTHER_APPS:-}" ]; then
  exit 0
fi
if ! command -v az >/dev/null || ! command -v zip >/dev/null; then
  echo "az (the Azure CLI) and zip are needed to deploy to: $OTHER_APPS" >&2
  exit 1
fi
package=$PWD/dist/app.zip
rm -f "$package"
(cd dist/app && zip --quiet --recurse-paths --no-extra "$package" .)
for app in $OTHER_APPS; do
  az functionapp deployment source config-zip --subscription "$AZURE_SUBSCRIPTION_ID" --resource-group "$AZURE_RESOURCE_GROUP" --name "$app" --src "$package" --output none
  echo "deployed to $app"
done
