#!/bin/bash
# Writes an OCI image layout from root trees, one layer each, with nothing but tar, gzip, sha256sum and jq.
# usage: oci-layout.sh OUT CONFIG LAYER_DIR...   CONFIG: the `config` member of an OCI image config, as JSON.
# The layout's image is tagged `latest`. Source: OCI image specification 1.1, image-layout and config.
set -euo pipefail
out=$1 config=$2
shift 2
mkdir -p "$out/blobs/sha256"
printf '{"imageLayoutVersion":"1.0.0"}' >"$out/oci-layout"

# Puts a file among the blobs; prints `<hex digest> <size>`.
blob() {
    local digest
    digest=$(sha256sum "$1" | cut -d' ' -f1)
    mv "$1" "$out/blobs/sha256/$digest"
    echo "$digest $(stat -c %s "$out/blobs/sha256/$digest")"
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
layers='[]' diff_ids='[]'
for tree in "$@"; do
    tar --create --numeric-owner --sort=name --mtime=@0 --xattrs --directory "$tree" --file "$work/layer.tar" .
    diff_id=$(sha256sum "$work/layer.tar" | cut -d' ' -f1)
    gzip -n -6 "$work/layer.tar"
    read -r digest size < <(blob "$work/layer.tar.gz")
    layers=$(jq -c --arg d "sha256:$digest" --argjson s "$size" \
        '. + [{mediaType: "application/vnd.oci.image.layer.v1.tar+gzip", digest: $d, size: $s}]' <<<"$layers")
    diff_ids=$(jq -c --arg d "sha256:$diff_id" '. + [$d]' <<<"$diff_ids")
done

jq -cj --argjson config "$config" --argjson ids "$diff_ids" --null-input \
    '{architecture: "amd64", os: "linux", config: $config, rootfs: {type: "layers", diff_ids: $ids}}' >"$work/config"
read -r config_digest config_size < <(blob "$work/config")
jq -cj --arg d "sha256:$config_digest" --argjson s "$config_size" --argjson layers "$layers" --null-input \
    '{schemaVersion: 2, mediaType: "application/vnd.oci.image.manifest.v1+json",
      config: {mediaType: "application/vnd.oci.image.config.v1+json", digest: $d, size: $s}, layers: $layers}' \
    >"$work/manifest"
read -r manifest_digest manifest_size < <(blob "$work/manifest")
jq -cj --arg d "sha256:$manifest_digest" --argjson s "$manifest_size" --null-input \
    '{schemaVersion: 2, mediaType: "application/vnd.oci.image.index.v1+json", manifests: [
      {mediaType: "application/vnd.oci.image.manifest.v1+json", digest: $d, size: $s,
       platform: {architecture: "amd64", os: "linux"},
       annotations: {"org.opencontainers.image.ref.name": "latest"}}]}' >"$out/index.json"
