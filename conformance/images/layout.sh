# Sourced by the scripts beside it: makes an OCI layout folder out of root folders, with tar, gzip and sha256sum alone.

# blob OUT: what comes in becomes a blob of the layout; prints its digest.
blob() {
    local out=$1 file digest
    file=$(mktemp "$out/blobs/sha256/.new.XXXXXX")
    cat > "$file"
    digest=$(sha256sum < "$file" | cut -d' ' -f1)
    chmod 644 "$file"
    mv "$file" "$out/blobs/sha256/$digest"
    echo "sha256:$digest"
}

# size OUT DIGEST: the bytes of a blob.
size() { stat -c %s "$1/blobs/sha256/${2#sha256:}"; }

# architecture: the machine's, in the words of images.
architecture() {
    case $(uname -m) in
        x86_64) echo amd64 ;;
        aarch64) echo arm64 ;;
        *) uname -m ;;
    esac
}

# packages CACHE NAME...: the .deb files of these packages, downloaded into the folder unless they are there.
packages() {
    local cache=$1 name; shift
    mkdir -p "$cache"
    for name in "$@"; do
        compgen -G "$cache/${name}_*.deb" > /dev/null || (cd "$cache" && apt-get -qq -o APT::Sandbox::User=root download "$name" > /dev/null)
        compgen -G "$cache/${name}_*.deb" | head -1
    done
}

# layout OUT NAME CONFIG ROOT...: one layer a root folder, lowest first; CONFIG is the JSON of the image's `config`.
layout() {
    local out=$1 name=$2 config=$3 root tar layers="" diffs="" digest diff; shift 3
    mkdir -p "$out/blobs/sha256"
    for root in "$@"; do
        tar=$(mktemp)
        tar --sort=name --numeric-owner --xattrs --mtime=@0 -C "$root" -cf "$tar" .
        diff=$(sha256sum < "$tar" | cut -d' ' -f1)
        digest=$(gzip -1 -n < "$tar" | blob "$out")
        rm -f "$tar"
        layers+="${layers:+,}{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar+gzip\",\"digest\":\"$digest\",\"size\":$(size "$out" "$digest")}"
        diffs+="${diffs:+,}\"sha256:$diff\""
    done
    local about manifest
    about=$(printf '{"architecture":"%s","os":"linux","config":%s,"rootfs":{"type":"layers","diff_ids":[%s]}}' \
        "$(architecture)" "$config" "$diffs" | blob "$out")
    manifest=$(printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"%s","size":%s},"layers":[%s]}' \
        "$about" "$(size "$out" "$about")" "$layers" | blob "$out")
    printf '{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"%s","size":%s,"annotations":{"org.opencontainers.image.ref.name":"%s"}}]}\n' \
        "$manifest" "$(size "$out" "$manifest")" "$name" > "$out/index.json"
    echo '{"imageLayoutVersion":"1.0.0"}' > "$out/oci-layout"
}
