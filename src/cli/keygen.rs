//! New keys for teams, and new secrets for the configuration.
//!
//! Invariants: every key has 256 bits from the operating system's generator; a team's key is printed once and only its
//! hash is ever stored.

pub use crate::base::team_key::{TeamKey, team_key};

use crate::base::name::TenantName;
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

/// The kind of the key to make.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub struct Args {
    /// Make a key for this team
    #[arg(long, value_name = "NAME")]
    tenant: Option<TenantName>,
    /// Make 64 hex digits for the root key, an encryption key or a token
    #[arg(long)]
    secret: bool,
}

/// Makes the requested key, and returns the text to print: a team's key with its line for the configuration, or 64 hex
/// digits. The text ends with a newline.
#[must_use]
pub fn run(args: &Args) -> String {
    match &args.tenant {
        Some(tenant) => {
            let TeamKey { key, sha256 } = team_key(tenant);
            let (key, hash) = (key.expose_secret(), hex::encode(sha256));
            format!(
                "# The key for the team, printed this once and stored nowhere:\n{key}\n\
                 # Its hash, for [tenants.{tenant}] in the configuration:\nkey_sha256 = [\"{hash}\"]\n"
            )
        }
        None => format!("{}\n", secret().expose_secret()),
    }
}

/// Makes 64 hex digits for a root key or an encryption key.
///
/// # Panics
/// Panics if the operating system gives no random bytes, because no safe key can be made then.
#[must_use]
pub fn secret() -> SecretString {
    hex::encode(random().as_slice()).into()
}

fn random() -> Zeroizing<[u8; 32]> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *bytes).expect("the operating system gives randomness");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use clap::Parser;
    use sha2::{Digest, Sha256};

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn args(arguments: &[&str]) -> Result<Args, clap::Error> {
        Cli::try_parse_from([&["keygen"], arguments].concat()).map(|cli| cli.args)
    }

    #[test]
    fn a_team_key_says_whose_it_is_and_is_never_made_twice() {
        let tenant: TenantName = "lending".parse().unwrap();
        let [one, other] = [team_key(&tenant), team_key(&tenant)];
        let secret = one.key.expose_secret().strip_prefix("igw_lending_").unwrap();
        assert_eq!(secret.len(), 43);
        assert_eq!(URL_SAFE_NO_PAD.decode(secret).unwrap().len(), 32);
        assert_ne!(one.key.expose_secret(), other.key.expose_secret());
        assert_eq!(one.sha256, <[u8; 32]>::from(Sha256::digest(one.key.expose_secret())));
        assert!(!format!("{one:?}").contains(secret));
    }

    #[test]
    fn a_secret_is_64_hex_digits() {
        let [one, other] = [secret(), secret()];
        assert_eq!(one.expose_secret().len(), 64);
        assert!(one.expose_secret().bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)));
        assert_ne!(one.expose_secret(), other.expose_secret());
        assert_eq!(hex::encode(std::array::from_fn::<u8, 32, _>(|i| i as u8 * 8))[..16], *"0008101820283038");
    }

    #[test]
    fn the_text_has_the_key_once_and_the_line_for_the_configuration() {
        let text = run(&args(&["--tenant", "lending"]).unwrap());
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let [key, line] = lines[..] else { panic!("{} lines", lines.len()) };
        let hash = hex::encode(Sha256::digest(key));
        assert_eq!(line, format!("key_sha256 = [\"{hash}\"]"));
        assert_eq!(text.matches("igw_lending_").count(), 1);
        assert_eq!(run(&args(&["--secret"]).unwrap()).len(), 65);
    }

    #[test]
    fn one_thing_is_made_at_a_time() {
        assert!(args(&[]).is_err());
        assert!(args(&["--tenant", "a", "--secret"]).is_err());
        assert!(args(&["--tenant", "No Name"]).unwrap_err().to_string().contains("1 to 32 characters"));
    }
}
