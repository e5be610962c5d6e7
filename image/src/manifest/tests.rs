//! Tests of manifest and config parsing: the kinds that exist, and the ways they are abused.
//! In: documents made here. Out: what was parsed, or the refusal's words. Never: performs I/O.

use super::*;
use serde_json::json;

fn parse(document: &serde_json::Value, content_type: &str) -> Result<Manifest, ManifestError> {
    Manifest::parse(document.to_string().as_bytes(), content_type, &Limits::default())
}

fn image(layer_type: &str, size: u64) -> serde_json::Value {
    let digest = Digest::of(b"layer");
    json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": Digest::of(b"c").as_str(), "size": 10},
        "layers": [{"mediaType": layer_type, "digest": digest.as_str(), "size": size}],
    })
}

#[test]
fn every_kind_of_layer_is_known_by_its_media_type() {
    for (media_type, compression) in [
        ("application/vnd.oci.image.layer.v1.tar", Compression::None),
        ("application/vnd.oci.image.layer.v1.tar+gzip", Compression::Gzip),
        ("application/vnd.oci.image.layer.v1.tar+zstd", Compression::Zstd),
        ("application/vnd.docker.image.rootfs.diff.tar.gzip", Compression::Gzip),
    ] {
        let Ok(Manifest::Image(image)) = parse(&image(media_type, 5), OCI_MANIFEST) else {
            panic!("{media_type}")
        };
        assert_eq!(image.layers[0].compression, compression);
    }
}

#[test]
fn what_cannot_be_used_is_refused_by_name() {
    let refusals = [
        (image("application/vnd.oci.image.layer.v1.tar+xz", 1), "tar+xz"),
        (image("application/vnd.oci.image.layer.v1.tar", u64::MAX), "more than"),
        (json!({"schemaVersion": 1}), "schema 1"),
        (json!({"schemaVersion": 2, "mediaType": "text/html"}), "text/html"),
        (json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [], "layers": []}), "not built"),
    ];
    for (document, words) in refusals {
        let text = parse(&document, OCI_MANIFEST).unwrap_err().to_string();
        assert!(text.contains(words), "{text}");
    }
    let mut helm = image("application/vnd.oci.image.layer.v1.tar", 1);
    helm["config"]["mediaType"] = json!("application/vnd.cncf.helm.config.v1+json");
    assert!(parse(&helm, OCI_MANIFEST).unwrap_err().to_string().contains("helm"));
    let mut many = image("application/vnd.oci.image.layer.v1.tar", 1);
    let layer = many["layers"][0].clone();
    many["layers"] = json!(vec![layer; 128]);
    assert!(matches!(parse(&many, OCI_MANIFEST), Err(ManifestError::TooManyLayers { .. })));
}

#[test]
fn an_index_gives_the_best_entry_and_skips_attestations() {
    let entry = |n: &str, os: &str, arch: &str, variant: Option<&str>| {
        json!({"mediaType": OCI_MANIFEST, "digest": Digest::of(n.as_bytes()).as_str(), "size": 1,
            "platform": {"os": os, "architecture": arch, "variant": variant}})
    };
    let document = json!({"schemaVersion": 2, "manifests": [
        entry("attestation", "unknown", "unknown", None),
        entry("v6", "linux", "arm", Some("v6")), entry("v7", "linux", "arm", Some("v7")),
        entry("amd64", "linux", "amd64", None), entry("amd64-v3", "linux", "amd64", Some("v3")),
    ]});
    let Ok(Manifest::Index(entries)) = parse(&document, OCI_INDEX) else { panic!() };
    let wanted = |architecture: &str, variant: Option<&str>| Platform {
        os: "linux".into(),
        architecture: architecture.into(),
        variant: variant.map(str::to_owned),
    };
    let chosen = |p: Platform| choose(&entries, &p).map(|e| e.digest.clone());
    assert_eq!(chosen(wanted("arm", Some("v7"))), Some(Digest::of(b"v7")));
    assert_eq!(chosen(wanted("arm", Some("v6"))), Some(Digest::of(b"v6")));
    assert_eq!(chosen(wanted("amd64", None)), Some(Digest::of(b"amd64")));
    assert_eq!(chosen(wanted("riscv64", None)), None);
}

#[test]
fn a_config_with_nulls_is_an_empty_config() {
    let text = json!({"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": null},
        "config": {"Env": null, "Cmd": null, "Entrypoint": null, "Volumes": null, "Labels": null, "User": ""}});
    let file = ConfigFile::parse(text.to_string().as_bytes(), 0).unwrap();
    assert_eq!(file.config, ImageConfig::default());
    assert!(ConfigFile::parse(text.to_string().as_bytes(), 1).is_err());
    let text = json!({"os": "linux", "architecture": "amd64", "config": {
        "Cmd": ["a", "b"], "Volumes": {"/data": {}}, "StopSignal": "SIGQUIT", "WorkingDir": "/w"}});
    let config = ConfigFile::parse(text.to_string().as_bytes(), 0).unwrap().config;
    assert_eq!(config.cmd, ["a", "b"]);
    assert!(config.volumes.contains("/data"));
    assert_eq!(config.stop_signal.as_deref(), Some("SIGQUIT"));
}
