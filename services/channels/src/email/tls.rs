//! TLS to mail servers: the system's authorities, and one of the account's own.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use super::settings::Tls;

/// What a connection to a mail server trusts; `None` if it is plain. `ca`:
/// certificates in PEM.
pub fn client(tls: Tls, ca: Option<&str>) -> Result<Option<Arc<ClientConfig>>, String> {
    let own = certificates(ca)?;
    if tls == Tls::None {
        return Ok(None);
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for certificate in own {
        roots.add(certificate).map_err(|error| format!("ca: {error}"))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("tls: {error}"))?;
    Ok(Some(Arc::new(
        builder.with_root_certificates(roots).with_no_client_auth(),
    )))
}

/// The certificates of a PEM text; none at all is a mistake.
fn certificates(ca: Option<&str>) -> Result<Vec<CertificateDer<'static>>, String> {
    let Some(pem) = ca else {
        return Ok(Vec::new());
    };
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err("ca: there is no certificate in it; name its file as ca_file".to_owned()),
        Err(error) => Err(format!("ca: {error}")),
    }
}
