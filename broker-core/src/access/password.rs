//! Password hashes: argon2id for new ones, and the three formats of RabbitMQ's definitions.
//!
//! RabbitMQ keeps `base64(salt ‖ H(salt ‖ password))` with a salt of four octets and one round of H. Such
//! hashes are verified as they are, so that users come over with their old passwords.

use std::fmt;

use argon2::password_hash::{PasswordHasher, PasswordVerifier, phc};
use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hashbrown::HashMap;
use md5::Md5;
use parking_lot::Mutex;
use sha2::{Digest, Sha256, Sha512};
use subtle::ConstantTimeEq;

use super::User;
use crate::name::UserName;

/// Octets of the salt in RabbitMQ's format.
const SALT_LEN: usize = 4;

/// The names of the algorithms, those of RabbitMQ's definitions among them.
const ARGON2ID: &str = "argon2id";
const SHA256: &str = "rabbit_password_hashing_sha256";
const SHA512: &str = "rabbit_password_hashing_sha512";
const MD5: &str = "rabbit_password_hashing_md5";

/// How long a right password is remembered, in milliseconds.
const REMEMBERED_FOR: u64 = 60_000;

/// The most users whose right password is remembered.
const REMEMBERED_MAX: usize = 4096;

/// A hash that is in no known format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the password hash is not in a known format: {0}")]
pub struct PasswordHashError(String);

/// How a user's password is checked. Never shows itself in a log.
#[derive(Clone, PartialEq, Eq)]
pub enum PasswordHash {
    /// argon2id, as a PHC string.
    Argon2id(String),
    /// RabbitMQ's `rabbit_password_hashing_sha256`: salt and digest.
    Sha256(Vec<u8>),
    /// RabbitMQ's `rabbit_password_hashing_sha512`.
    Sha512(Vec<u8>),
    /// RabbitMQ's `rabbit_password_hashing_md5`.
    Md5(Vec<u8>),
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Argon2id(_) => "argon2id(…)",
            Self::Sha256(_) => "sha256(…)",
            Self::Sha512(_) => "sha512(…)",
            Self::Md5(_) => "md5(…)",
        })
    }
}

fn argon2() -> Argon2<'static> {
    // 19 MiB, two passes, one lane: the least that OWASP recommends.
    let params = Params::new(19 * 1024, 2, 1, None).unwrap_or_default();
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

impl PasswordHash {
    /// Hashes a new password with a random salt. Takes tens of milliseconds.
    #[must_use]
    pub fn argon2id(password: &[u8]) -> Self {
        let hash = argon2().hash_password(password);
        // The salt comes from the system and the parameters are constants, so that nothing can fail; if
        // it does all the same, the empty string verifies no password.
        Self::Argon2id(hash.map(|hash| hash.to_string()).unwrap_or_default())
    }

    /// Reads a hash of RabbitMQ's definitions. `algorithm` is its `hashing_algorithm`.
    ///
    /// # Errors
    /// [`PasswordHashError`] when the text or the algorithm is not known.
    pub fn from_rabbitmq(hash: &str, algorithm: &str) -> Result<Self, PasswordHashError> {
        let octets = STANDARD.decode(hash).map_err(|error| PasswordHashError(error.to_string()))?;
        let (make, len): (fn(Vec<u8>) -> Self, usize) = match algorithm {
            SHA256 => (Self::Sha256, 32),
            SHA512 => (Self::Sha512, 64),
            MD5 => (Self::Md5, 16),
            other => return Err(PasswordHashError(format!("algorithm {other}"))),
        };
        if octets.len() != SALT_LEN + len {
            return Err(PasswordHashError(format!("{} octets", octets.len())));
        }
        Ok(make(octets))
    }

    /// The algorithm's name and the hash as text, for the log.
    pub(crate) fn to_text(&self) -> (&'static str, String) {
        match self {
            Self::Argon2id(hash) => (ARGON2ID, hash.clone()),
            Self::Sha256(salted) => (SHA256, STANDARD.encode(salted)),
            Self::Sha512(salted) => (SHA512, STANDARD.encode(salted)),
            Self::Md5(salted) => (MD5, STANDARD.encode(salted)),
        }
    }

    /// Reads what [`to_text`](Self::to_text) has written.
    pub(crate) fn from_text(hash: &str, algorithm: &str) -> Result<Self, PasswordHashError> {
        match algorithm {
            ARGON2ID => Ok(Self::Argon2id(hash.to_owned())),
            other => Self::from_rabbitmq(hash, other),
        }
    }

    /// Whether this is the password.
    #[must_use]
    pub fn verify(&self, password: &[u8]) -> bool {
        match self {
            Self::Argon2id(hash) => phc::PasswordHash::new(hash)
                .is_ok_and(|hash| argon2().verify_password(password, &hash).is_ok()),
            Self::Sha256(salted) => verify_salted::<Sha256>(salted, password),
            Self::Sha512(salted) => verify_salted::<Sha512>(salted, password),
            Self::Md5(salted) => verify_salted::<Md5>(salted, password),
        }
    }
}

fn verify_salted<D: Digest>(salted: &[u8], password: &[u8]) -> bool {
    let Some((salt, digest)) = salted.split_at_checked(SALT_LEN) else {
        return false;
    };
    let found = D::new().chain_update(salt).chain_update(password).finalize();
    found.as_slice().ct_eq(digest).into()
}

/// Spends the time that a wrong password costs, so that an unknown user cannot be told from a known one.
pub(super) fn burn_time(password: &[u8]) {
    drop(argon2().hash_password(password));
}

/// Remembers for a minute which password was right, as a digest under a key that nobody knows.
pub(super) struct RecentPasswords {
    key: [u8; 32],
    right: Mutex<HashMap<UserName, Right>>,
}

struct Right {
    digest: [u8; 32],
    hash: PasswordHash,
    until: u64,
}

impl fmt::Debug for RecentPasswords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecentPasswords")
    }
}

impl RecentPasswords {
    pub(super) fn new() -> Self {
        Self { key: rand::random(), right: Mutex::default() }
    }

    fn digest(&self, password: &[u8]) -> [u8; 32] {
        Sha256::new().chain_update(self.key).chain_update(password).finalize().into()
    }

    pub(super) fn remembers(&self, user: &User, password: &[u8], now: u64) -> bool {
        let digest = self.digest(password);
        self.right.lock().get(&user.name).is_some_and(|right| {
            now < right.until && right.hash == user.password && right.digest.ct_eq(&digest).into()
        })
    }

    pub(super) fn verify(&self, user: &User, password: &[u8], now: u64) -> bool {
        if self.remembers(user, password, now) {
            return true;
        }
        if !user.password.verify(password) {
            return false;
        }
        let mut right = self.right.lock();
        if right.len() >= REMEMBERED_MAX {
            right.retain(|_, right| now < right.until);
        }
        if right.len() < REMEMBERED_MAX {
            let entry = Right {
                digest: self.digest(password),
                hash: user.password.clone(),
                until: now + REMEMBERED_FOR,
            };
            right.insert(user.name.clone(), entry);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_of_rabbitmq_are_verified() {
        let sha256 = "rabbit_password_hashing_sha256";
        for (hash, algorithm, password) in [
            ("kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR", sha256, "test12"),
            ("kI3GChNpte2FApYFXScl+0dIluk=", "rabbit_password_hashing_md5", "test12"),
            (
                "kI3GChuNuIYf8lRbCCxZjgjKwsY19ns6+uFO0zcXRBGA/XGJPYD8OWMy7EB8TaOmAzjP2azv84GbINYwX2cDWb4DHnc=",
                "rabbit_password_hashing_sha512",
                "test12",
            ),
            ("27cx5+wEi8R8uwTeTr3hk5azuV3yYxxAtwPPhCyrbdsxVhqq", sha256, "foobarbaz"),
        ] {
            let hash = PasswordHash::from_rabbitmq(hash, algorithm).unwrap();
            assert!(hash.verify(password.as_bytes()), "{algorithm}");
            assert!(!hash.verify(b"test13"), "{algorithm}");
        }
    }

    #[test]
    fn a_hash_shows_nothing_of_itself() {
        assert_eq!(format!("{:?}", PasswordHash::argon2id(b"secret")), "argon2id(…)");
    }
}
