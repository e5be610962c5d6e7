//! A certificate of a few seconds against a control plane over real mTLS that refuses the first try.

use super::*;
use crate::join::tests::{Ca, Renewals, serve_well};
use proptest::prelude::*;
use rcgen::ExtendedKeyUsagePurpose::ClientAuth;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::SystemTime;

const PATIENCE: Duration = Duration::from_secs(20);

fn lasting(ca: &Ca, life: Duration) -> Credentials {
    let (certificate, key) = ca.lasting_leaf("node", ClientAuth, SystemTime::now() + life);
    Credentials { certificate, key, ca: ca.pem() }
}

struct World {
    dir: tempfile::TempDir,
    credentials: watch::Sender<Credentials>,
    endpoint: ControlEndpoint,
    renewals: Renewals,
    leaving: CancellationToken,
}

impl World {
    /// With a certificate for so long.
    async fn new(life: Duration) -> Self {
        let ca = Arc::new(Ca::new());
        let (uri, renewals) = serve_well(&ca).await;
        let dir = tempfile::tempdir().unwrap();
        let credentials = lasting(&ca, life);
        identity::write_private(&dir.path().join("node.pem"), credentials.to_pem().as_bytes()).unwrap();
        let credentials = watch::channel(credentials).0;
        let endpoint = ControlEndpoint::new(&uri, Some(credentials.subscribe()));
        Self { dir, credentials, endpoint, renewals, leaving: CancellationToken::new() }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("node.pem")
    }

    fn renewal(&self) -> Renewal {
        let (endpoint, credentials) = (self.endpoint.clone(), self.credentials.clone());
        Renewal { endpoint, path: self.path(), credentials, leaving: self.leaving.clone() }
    }
}

#[tokio::test]
async fn a_certificate_is_renewed_before_it_ends_and_everybody_connects_with_the_new_one() {
    let world = World::new(Duration::from_secs(3)).await;
    let old = world.credentials.borrow().clone();
    let told = world.endpoint.renewed();
    let running = tokio::spawn(world.renewal().run());
    tokio::time::timeout(PATIENCE, told).await.expect("renewed in time");
    let new = world.credentials.borrow().clone();
    assert!(new.key != old.key && new.certificate != old.certificate && new.ca == old.ca);
    assert!(validity(&new.certificate).unwrap().not_after_unix_ms > unix_ms() + 3_000_000);
    let kept = Credentials::load(&world.path()).unwrap();
    assert_eq!((kept.key.trim(), kept.certificate.trim()), (new.key.trim(), new.certificate.trim()));
    assert_eq!(std::fs::metadata(world.path()).unwrap().permissions().mode() & 0o777, 0o600);
    let mut client = NodeClient::new(world.endpoint.connect().await.unwrap());
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate_request_pem = certificate_request(&key).unwrap();
    client.renew_certificate(RenewCertificateRequest { certificate_request_pem }).await.unwrap();
    let asked = world.renewals.lock().unwrap().clone();
    let (old, new) = (der(&old.certificate).unwrap().to_vec(), der(&new.certificate).unwrap().to_vec());
    assert_eq!(asked, [old.clone(), old, new], "tried again with the old one, then the new one is used");
    world.leaving.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn an_answer_that_is_of_no_use_changes_nothing() {
    let world = World::new(Duration::from_secs(7200)).await;
    let before = std::fs::read(world.path()).unwrap();
    let old = validity(&world.credentials.borrow().certificate).unwrap();
    let refused = world.renewal().renew(old).await.unwrap_err();
    assert!(matches!(&refused, RenewError::Refused(status) if status.message() == "not now"), "{refused:?}");
    // It would last an hour, the old one two.
    let shorter = world.renewal().renew(old).await.unwrap_err();
    assert!(matches!(shorter, RenewError::Certificate { .. }), "{shorter:?}");
    assert_eq!(std::fs::read(world.path()).unwrap(), before);
    let other = lasting(&Ca::new(), Duration::from_secs(9000)).certificate;
    let wrong = check(&other, &rcgen::KeyPair::generate().unwrap(), old).unwrap_err();
    assert_eq!(wrong.to_string(), "the certificate is none: it is for another key");
    assert!(check("nonsense", &rcgen::KeyPair::generate().unwrap(), old).is_err());
}

proptest! {
    #[test]
    fn the_moment_lies_between_half_and_four_fifths(from in 0..1u64 << 42, life in 1000..1u64 << 42, part: u8) {
        let validity = Validity { not_before_unix_ms: from, not_after_unix_ms: from + life };
        let at = renew_at_unix_ms(validity, part);
        prop_assert!(from + life / 2 <= at && at <= from + life / 10 * 8 + 8, "{at}");
        let pause = again_in(validity, at);
        prop_assert!((AGAIN_FIRST..=AGAIN_LONGEST).contains(&pause));
        prop_assert!(pause == AGAIN_FIRST || pause <= Duration::from_millis(life) / 20);
    }
}
