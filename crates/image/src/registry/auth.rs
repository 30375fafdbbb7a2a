//! Who we are to one registry: basic and bearer tokens, asked for when a request is refused, and every retry.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::header::{HeaderMap, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Response, StatusCode, Uri};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use crate::reference::ImageName;

use super::credentials::Login;
use super::http::{Ask, Client, HttpError, chain, host_of, is_loopback};
use super::mirrors::Endpoint;
use super::{Access, Patience, PullError};

/// Bytes of an answer that carries a token.
const TOKEN_MOST: usize = 1 << 20;

/// All requests of one pull from one endpoint.
pub(super) struct Session<'a> {
    client: &'a Client,
    patience: &'a Patience,
    endpoint: Endpoint,
    repository: String,
    login: Option<Login>,
    /// What the registry takes, once it was found out.
    authorization: Mutex<Option<HeaderValue>>,
}

impl<'a> Session<'a> {
    pub(super) fn new(
        client: &'a Client,
        patience: &'a Patience,
        endpoint: Endpoint,
        name: &ImageName,
        access: &Access,
    ) -> Session<'a> {
        Session {
            client,
            patience,
            login: access
                .credentials
                .for_repository(&endpoint.account, &name.repository),
            repository: name.repository.clone(),
            endpoint,
            authorization: Mutex::new(None),
        }
    }

    /// Host and port, for messages.
    pub(super) fn host(&self) -> String {
        self.endpoint.host.clone()
    }

    pub(super) fn patience(&self) -> &Patience {
        self.patience
    }

    /// Asks for a whole small thing.
    pub(super) async fn get_all(
        &self,
        what: &'static str,
        path: &str,
        accept: &str,
        most: u64,
    ) -> Result<(HeaderMap, Vec<u8>), PullError> {
        let mut attempt = 0;
        loop {
            let failed = match self.get(path, accept, 0).await {
                Ok(answer) => match self.body(what, answer, most).await {
                    Ok(all) => return Ok(all),
                    Err(PullError::Http(error)) => error,
                    Err(error) => return Err(error),
                },
                Err(error) => error,
            };
            self.pause(&mut attempt, failed).await?;
        }
    }

    /// Waits before another attempt, or gives the failure back when it is for good or there were enough.
    pub(super) async fn pause(
        &self,
        attempt: &mut u32,
        failed: HttpError,
    ) -> Result<(), HttpError> {
        *attempt += 1;
        if !failed.is_passing() || *attempt >= self.patience.attempts {
            return Err(failed);
        }
        tracing::debug!(error = %failed, attempt, "a request to a registry is repeated");
        let doubled = 1_u32 << (*attempt - 1).min(6);
        tokio::time::sleep(self.patience.pause * doubled).await;
        Ok(())
    }

    /// One request, once it is settled who we are; `from`: bytes of it that are here. Success is 200 or 206. A registry
    /// that asks to wait is waited for.
    pub(super) async fn get(
        &self,
        path: &str,
        accept: &str,
        from: u64,
    ) -> Result<Response<Incoming>, HttpError> {
        let mut asked_for_token = false;
        let mut waited = 0;
        loop {
            let answer = self.ask(path, accept, from).await?;
            match answer.status() {
                StatusCode::OK | StatusCode::PARTIAL_CONTENT => return Ok(answer),
                StatusCode::UNAUTHORIZED if !asked_for_token => {
                    asked_for_token = true;
                    self.settle(answer.headers(), path).await?;
                }
                StatusCode::TOO_MANY_REQUESTS if waited < self.patience.attempts => {
                    waited += 1;
                    tokio::time::sleep(self.wait_asked(answer.headers(), waited)?).await;
                }
                status => return Err(self.refusal(status, answer.headers(), path)),
            }
        }
    }

    async fn ask(
        &self,
        path: &str,
        accept: &str,
        from: u64,
    ) -> Result<Response<Incoming>, HttpError> {
        let text = format!("{}/v2/{}/{path}", self.endpoint.base, self.repository);
        let uri: Uri = text.parse().map_err(|_| HttpError::Place {
            host: self.host(),
            to: text.chars().take(200).collect(),
            why: "it is no address",
        })?;
        let authorization = self.known();
        self.client
            .get(Ask {
                uri,
                accept,
                from,
                authorization,
                plain: self.endpoint.plain,
            })
            .await
    }

    fn known(&self) -> Option<HeaderValue> {
        let known = self.authorization.lock();
        known.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn remember(&self, value: &str) -> Result<(), HttpError> {
        let mut value = HeaderValue::from_str(value)
            .map_err(|_| self.unauthorized("this registry", "the token that it gave is none"))?;
        value.set_sensitive(true);
        let mut known = self
            .authorization
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *known = Some(value);
        Ok(())
    }

    /// Does what a refusal asks for: our name and password, or a token.
    async fn settle(&self, headers: &HeaderMap, path: &str) -> Result<(), HttpError> {
        let challenges: Vec<Challenge> = headers
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| Challenge::parse(value.to_str().ok()?))
            .collect();
        for challenge in &challenges {
            match challenge.scheme.as_str() {
                "bearer" => {
                    let token = self.token(challenge).await?;
                    return self.remember(&format!("Bearer {token}"));
                }
                "basic" => {
                    let Some(login) = &self.login else {
                        return Err(self.unauthorized(path, NO_LOGIN));
                    };
                    return self.remember(&login.basic());
                }
                _ => {}
            }
        }
        Err(self.unauthorized(path, "it does not say how to be authorized"))
    }

    /// upstream: distribution, "Token Authentication Specification".
    async fn token(&self, challenge: &Challenge) -> Result<String, HttpError> {
        let realm = challenge
            .parameters
            .get("realm")
            .cloned()
            .unwrap_or_default();
        let refused = |why| HttpError::Place {
            host: self.host(),
            to: realm.chars().take(200).collect(),
            why,
        };
        let scope = challenge
            .parameters
            .get("scope")
            .cloned()
            .unwrap_or_else(|| format!("repository:{}:pull", self.repository));
        let mut text = format!(
            "{realm}{}scope={}",
            if realm.contains('?') { '&' } else { '?' },
            encode(&scope)
        );
        if let Some(service) = challenge.parameters.get("service") {
            text.push_str(&format!("&service={}", encode(service)));
        }
        let uri: Uri = text.parse().map_err(|_| refused("it is no address"))?;
        let open = self.endpoint.plain || is_loopback(uri.host().unwrap_or_default());
        match uri.scheme_str() {
            Some("https") => {}
            // Who was spoken to with TLS names no open place for secrets.
            Some("http") if open && self.endpoint.base.starts_with("http:") => {}
            Some(_) | None => return Err(refused("tokens are asked for with TLS only")),
        }
        let authorization = self.login.as_ref().map(Login::basic);
        let authorization = authorization.and_then(|value| HeaderValue::from_str(&value).ok());
        let with_login = authorization.is_some();
        let answer = self
            .client
            .get(Ask {
                uri: uri.clone(),
                accept: "application/json",
                from: 0,
                authorization,
                plain: self.endpoint.plain,
            })
            .await?;
        if answer.status() != StatusCode::OK {
            if matches!(
                answer.status(),
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
            ) {
                return Err(self.unauthorized(
                    &self.repository,
                    if with_login { BAD_LOGIN } else { NO_LOGIN },
                ));
            }
            return Err(HttpError::Status {
                host: host_of(&uri),
                status: answer.status(),
                what: "a token".to_owned(),
            });
        }
        self.read_token(answer, &uri).await
    }

    async fn read_token(&self, answer: Response<Incoming>, uri: &Uri) -> Result<String, HttpError> {
        let cut = |why: String| HttpError::Cut {
            host: host_of(uri),
            why,
        };
        let body = Limited::new(answer.into_body(), TOKEN_MOST).collect();
        let bytes = match tokio::time::timeout(self.patience.stall, body).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) => return Err(cut(error.to_string())),
            Err(_) => return Err(cut("nothing more came".to_owned())),
        };
        let token: Token =
            serde_json::from_slice(&bytes).map_err(|error| cut(error.to_string()))?;
        token
            .token
            .or(token.access_token)
            .ok_or_else(|| cut("an answer without a token".to_owned()))
    }

    /// The whole body, within a limit.
    async fn body(
        &self,
        what: &'static str,
        answer: Response<Incoming>,
        most: u64,
    ) -> Result<(HeaderMap, Vec<u8>), PullError> {
        let (parts, mut body) = answer.into_parts();
        let mut bytes = Vec::new();
        let cut = |why: String| HttpError::Cut {
            host: self.host(),
            why,
        };
        loop {
            let next = tokio::time::timeout(self.patience.stall, body.frame()).await;
            let frame = match next {
                Err(_) => return Err(cut("nothing more came".to_owned()).into()),
                Ok(None) => return Ok((parts.headers, bytes)),
                Ok(Some(Err(error))) => return Err(cut(chain(&error)).into()),
                Ok(Some(Ok(frame))) => frame,
            };
            if let Some(data) = frame.data_ref() {
                if (bytes.len() + data.len()) as u64 > most {
                    let host = self.host();
                    return Err(PullError::TooLarge { what, host, most });
                }
                bytes.extend_from_slice(data);
            }
        }
    }

    /// How long a registry that has enough asks to wait; too long is an error, no answer is our own guess.
    fn wait_asked(&self, headers: &HeaderMap, waited: u32) -> Result<Duration, HttpError> {
        let doubled = 1_u32 << (waited - 1).min(6);
        let Some(asked) = retry_after(headers, jiff::Timestamp::now()) else {
            return Ok(self.patience.pause * doubled);
        };
        if asked > self.patience.retry_after_most {
            return Err(HttpError::TooMany {
                host: self.host(),
                after: format!("; it asks to wait {} s", asked.as_secs()),
            });
        }
        Ok(asked)
    }

    fn refusal(&self, status: StatusCode, headers: &HeaderMap, path: &str) -> HttpError {
        let host = self.host();
        let what = format!("{}/{path}", self.repository);
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let hint = if self.login.is_some() {
                    BAD_LOGIN
                } else {
                    NO_LOGIN
                };
                self.unauthorized(path, hint)
            }
            StatusCode::NOT_FOUND => HttpError::NotFound { host, what },
            StatusCode::TOO_MANY_REQUESTS => HttpError::TooMany {
                host,
                after: retry_after(headers, jiff::Timestamp::now())
                    .map(|asked| format!("; it asks to wait {} s", asked.as_secs()))
                    .unwrap_or_default(),
            },
            status => HttpError::Status { host, status, what },
        }
    }

    fn unauthorized(&self, path: &str, hint: &str) -> HttpError {
        HttpError::Unauthorized {
            host: self.host(),
            what: format!("{}/{path}", self.repository),
            hint: hint.to_owned(),
        }
    }
}

const NO_LOGIN: &str = "it wants credentials and none are known for it; name a secret in imagePullSecrets, or log in with a docker config file";
const BAD_LOGIN: &str = "the credentials known for it were not taken";

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

/// What a refusal asks for.
#[derive(Debug, PartialEq, Eq)]
struct Challenge {
    scheme: String,
    parameters: BTreeMap<String, String>,
}

impl Challenge {
    /// `Bearer realm="https://…",service="…",scope="…"`.
    fn parse(text: &str) -> Option<Challenge> {
        let text = text.trim();
        let (scheme, mut rest) = text.split_once(' ').unwrap_or((text, ""));
        let mut parameters = BTreeMap::new();
        while let Some((key, after)) = rest.split_once('=') {
            let key = key.trim_matches([' ', ',']).to_ascii_lowercase();
            let value;
            (value, rest) = match after.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"')?,
                None => after.split_once(',').unwrap_or((after, "")),
            };
            parameters.insert(key, value.to_owned());
        }
        (!scheme.is_empty()).then(|| Challenge {
            scheme: scheme.to_ascii_lowercase(),
            parameters,
        })
    }
}

impl Login {
    fn basic(&self) -> String {
        format!(
            "Basic {}",
            BASE64.encode(format!("{}:{}", self.username, self.password))
        )
    }
}

/// Seconds, or a date.
fn retry_after(headers: &HeaderMap, now: jiff::Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?;
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(text.trim()).ok()?.timestamp();
    Some(Duration::try_from(date.duration_since(now)).unwrap_or(Duration::ZERO))
}

fn encode(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_is_read_whatever_its_order_and_quotes() {
        let text = "Bearer realm=\"https://auth.io/token\",service=r.io, scope=\"repository:a/b:pull,push\"";
        let challenge = Challenge::parse(text).expect("a challenge");
        assert_eq!(challenge.scheme, "bearer");
        assert_eq!(challenge.parameters["realm"], "https://auth.io/token");
        assert_eq!(challenge.parameters["service"], "r.io");
        assert_eq!(challenge.parameters["scope"], "repository:a/b:pull,push");
        assert_eq!(
            Challenge::parse("Basic").map(|c| c.scheme).as_deref(),
            Some("basic")
        );
        assert_eq!(Challenge::parse(""), None);
        assert_eq!(Challenge::parse("Bearer realm=\"open"), None);
    }

    #[test]
    fn a_time_to_wait_is_seconds_or_a_date() {
        let wait = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_str(text).expect("a header"));
            retry_after(&headers, jiff::Timestamp::UNIX_EPOCH).map(|wait| wait.as_secs())
        };
        assert_eq!(wait("7"), Some(7));
        assert_eq!(wait("Thu, 01 Jan 1970 00:01:00 GMT"), Some(60));
        assert_eq!(wait("soon"), None);
    }
}
