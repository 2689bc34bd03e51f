//! A channel that says who calls, and what the call is part of: what the stubs of
//! [`HearthClient`](crate::HearthClient) call over.

use std::fmt;
use std::task::{Context, Poll};

use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::transport::channel::ResponseFuture;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Error, Identity};
use zeroize::Zeroizing;

use crate::trace::TraceContext;

/// Who calls, and whom it trusts. By default nobody says who it is, over whatever the address says.
#[derive(Clone, Default)]
pub struct Credentials {
    /// A static token or a JWT, sent with every call. Wiped from memory when this is dropped; what is sent
    /// with each call is kept by the client.
    pub token: Option<Zeroizing<String>>,
    /// Authorities that the server's certificate must come from, in PEM. An `https://` address needs them.
    pub ca: Option<Vec<u8>>,
    /// A certificate of the caller's own and its private key, in PEM. The key is wiped as the token is.
    pub identity: Option<(Vec<u8>, Zeroizing<Vec<u8>>)>,
    /// The name that the server's certificate must have; unset: the host of the address.
    pub server_name: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (token, identity) = (self.token.is_some(), self.identity.is_some());
        f.debug_struct("Credentials")
            .field("has_token", &token)
            .field("has_identity", &identity)
            .field("server_name", &self.server_name)
            .finish_non_exhaustive()
    }
}

impl Credentials {
    /// How a connection is encrypted, for whoever makes a channel of their own; `None` without authorities.
    #[must_use]
    pub fn tls(&self) -> Option<ClientTlsConfig> {
        let ca = self.ca.as_ref()?;
        let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca));
        if let Some((certificate, key)) = &self.identity {
            tls = tls.identity(Identity::from_pem(certificate, key));
        }
        Some(match &self.server_name {
            Some(name) => tls.domain_name(name),
            None => tls,
        })
    }
}

/// A channel, and what every call over it says of who makes it. Clones share the connection.
#[derive(Clone)]
pub struct Transport {
    channel: Channel,
    authorization: Option<http::HeaderValue>,
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport").field("channel", &self.channel).finish_non_exhaustive()
    }
}

impl From<Channel> for Transport {
    fn from(channel: Channel) -> Self {
        Self { channel, authorization: None }
    }
}

impl Transport {
    /// One whose calls bear `token`. A token that no header can have is nobody's, and is sent as none.
    #[must_use]
    pub fn bearing(channel: Channel, token: &str) -> Self {
        let text = Zeroizing::new(format!("Bearer {token}"));
        let authorization = http::HeaderValue::try_from(text.as_str()).ok();
        let authorization = authorization.map(|mut value| {
            value.set_sensitive(true);
            value
        });
        Self { channel, authorization }
    }
}

impl Service<http::Request<Body>> for Transport {
    type Response = http::Response<Body>;
    type Error = Error;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Service::poll_ready(&mut self.channel, cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> ResponseFuture {
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(http::header::AUTHORIZATION, authorization.clone());
        }
        if let Some(context) = TraceContext::current() {
            context.inject(request.headers_mut());
        }
        Service::call(&mut self.channel, request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let credentials = Credentials {
            token: Some("hearth_secret".to_owned().into()),
            identity: Some((b"certificate".to_vec(), b"secret".to_vec().into())),
            ..Credentials::default()
        };
        let shown = format!("{credentials:?}");
        assert!(!shown.contains("secret") && !shown.contains("115"), "{shown}");
    }
}
