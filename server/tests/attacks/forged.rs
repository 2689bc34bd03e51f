//! JWTs that are not what they say.

use std::time::Duration;

use hearth_proto::{ClientOptions, Credentials, HearthClient, v1};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp};
use serde_json::{Value, json};
use tonic::Code;

use crate::Answer;
use crate::attacks::on_threads;
use crate::frames::PATIENCE;
use crate::target::Site;

/// Forgeries of each kind.
const TRIES: usize = 300;

fn claims(seconds: u64) -> Value {
    json!({"sub": "alice", "aud": "hearth", "exp": get_current_timestamp() + seconds})
}

/// Whether a token is let in; anything but a yes and a no is an error.
async fn is_known(site: &Site, token: &str) -> Answer<bool> {
    let token = Some(token.to_owned().into());
    let credentials = Credentials { token, ..Credentials::default() };
    let address = site.plain.address.to_string();
    let client = HearthClient::connect_as(&address, ClientOptions::default(), &credentials).await?;
    let asked = client.node.clone().get_node(v1::GetNodeRequest::default()).await;
    match asked.map_err(|status| status.code()) {
        Ok(_) => Ok(true),
        Err(Code::Unauthenticated) => Ok(false),
        Err(code) => Err(format!("it is answered with {code:?}").into()),
    }
}

async fn none_is_known(site: &Site, tokens: &[String]) -> Answer<String> {
    if !is_known(site, &site.signer.sign(&claims(300))?).await? {
        return Err("a good token is not let in".into());
    }
    for token in tokens.iter().cycle().take(TRIES) {
        if is_known(site, token).await? {
            return Err(format!("it was let in: {token}").into());
        }
    }
    Ok(format!("{TRIES} forgeries, none let in"))
}

pub(crate) fn without_signature(site: &Site) -> Answer<String> {
    on_threads(async {
        let good = site.signer.sign(&claims(300))?;
        let [_, body, signature] = *good.split('.').collect::<Vec<_>>() else {
            return Err("it is no JWT".into());
        };
        // {"alg":"none"}, {"alg":"None"}, {"alg":"NONE","typ":"JWT"}
        let headers =
            ["eyJhbGciOiJub25lIn0", "eyJhbGciOiJOb25lIn0", "eyJhbGciOiJOT05FIiwidHlwIjoiSldUIn0"];
        let forged = headers.iter().flat_map(|header| {
            ["", signature].map(|signature| format!("{header}.{body}.{signature}"))
        });
        none_is_known(site, &forged.collect::<Vec<_>>()).await
    })
}

pub(crate) fn confused_keys(site: &Site) -> Answer<String> {
    on_threads(async {
        let secret = EncodingKey::from_secret(site.signer.public.as_bytes());
        let algorithms = [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];
        let forged: Result<Vec<_>, _> = algorithms
            .iter()
            .map(|algorithm| encode(&Header::new(*algorithm), &claims(300), &secret))
            .collect();
        none_is_known(site, &forged?).await
    })
}

pub(crate) fn replayed(site: &Site) -> Answer<String> {
    on_threads(async {
        let token = site.signer.sign(&claims(5))?;
        let mut uses = 0;
        let end = tokio::time::Instant::now() + PATIENCE;
        while is_known(site, &token).await? {
            uses += 1;
            if tokio::time::Instant::now() > end {
                return Err("it never expires".into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let replayed = none_is_known(site, &[token]).await?;
        match uses {
            // A slow machine may have taken all of its time to connect.
            0 => Ok(format!("it expired before its first use; {replayed}")),
            uses => Ok(format!("{uses} uses while it held; then {replayed}")),
        }
    })
}
