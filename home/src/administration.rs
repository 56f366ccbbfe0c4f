//! What the owner asks for by command: as it travels over the control socket to the running program,
//! and performed, there or (while none runs) by the command itself. Blocking.

use gatepost_protocol::mail::access::{Access, Rule};
use gatepost_protocol::mail::address::Address;
use gatepost_protocol::secret::Secret;
use gatepost_runtime::clock::rfc3339;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::accounts::administration::AdministrationError;
use crate::accounts::book::Quota;
use crate::accounts::caps::Cap;
use crate::accounts::password::Scope;
use crate::accounts::{Accounts, alias_file};
use crate::delivery::maildir::{Folder, Maildirs};

/// The key under which a request travels.
pub const KEY: &str = "administration";

/// Aliases named with an account.
const ALIASES_SHOWN_MAX: usize = 100;

/// One request.
#[derive(Serialize, Deserialize)]
#[expect(missing_debug_implementations, reason = "may hold a password")]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Make an account.
    AccountAdd {
        /// Its address.
        address: String,
        /// Its password; without one only app passwords can log in.
        password: Option<String>,
    },
    /// List accounts.
    AccountList,
    /// One account, its addresses and bounds.
    AccountShow {
        /// Its address.
        address: String,
    },
    /// Remove an account; its mail stays.
    AccountRemove {
        /// Its address.
        address: String,
    },
    /// Set an account's password.
    AccountPassword {
        /// Its address.
        address: String,
        /// The new one.
        password: String,
    },
    /// Set how much an account may send.
    AccountCap {
        /// Its address.
        address: String,
        /// Recipients elsewhere in an hour and in a day; what all may, if not given.
        cap: Option<(u32, u32)>,
    },
    /// Set what an account's mailbox may hold.
    AccountQuota {
        /// Its address.
        address: String,
        /// How much; without it, what the config says for all.
        quota: Option<QuotaRequest>,
    },
    /// Make an app password.
    AppPasswordAdd {
        /// Whose.
        address: String,
        /// Its name.
        name: String,
        /// For everything, not for sending only.
        full: bool,
    },
    /// List app passwords.
    AppPasswordList {
        /// Whose; everybody's if not given.
        address: Option<String>,
    },
    /// Revoke an app password.
    AppPasswordRemove {
        /// Whose.
        address: String,
        /// Its name.
        name: String,
    },
    /// Add targets to an alias.
    AliasAdd {
        /// An address, a local name, a pattern, or `@domain`.
        source: String,
        /// Where it leads.
        targets: Vec<String>,
    },
    /// One alias.
    AliasShow {
        /// Its source.
        source: String,
    },
    /// Where mail for an address would go.
    AliasTest {
        /// The address, or a local name.
        address: String,
    },
    /// Add all aliases of a file.
    AliasImport {
        /// Its text.
        file: String,
        /// Those that are not in it go.
        replace: bool,
    },
    /// All aliases as a file: a hundred thousand take no more memory than their text.
    AliasExport,
    /// New keys for the return paths of forwarded mail.
    AliasRotateKeys,
    /// What concerns the access list.
    Access(AccessRequest),
    /// Remove an alias, or one of its targets.
    AliasRemove {
        /// An address, a local name, a pattern, or `@domain`.
        source: String,
        /// Only this target.
        target: Option<String>,
    },
}

/// A request about the access list.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum AccessRequest {
    /// Take or refuse mail, whatever else is found.
    Add {
        /// Allow; else refuse.
        allow: bool,
        /// A client's address or network, a sender's address or domain.
        subject: String,
        /// Only mail for this domain.
        recipient: Option<String>,
    },
    /// List the access list.
    List,
    /// Remove a rule of the access list.
    Remove {
        /// Its subject.
        subject: String,
        /// Its domain, if it has one.
        recipient: Option<String>,
    },
}

/// What a mailbox may hold.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum QuotaRequest {
    /// No bound.
    Unlimited,
    /// So many octets.
    Octets(u64),
}

/// Performs it. An error is a text for people.
pub fn perform(accounts: &Accounts, maildirs: &Maildirs, request: Request) -> Result<Value, String> {
    answer(accounts, maildirs, request).map_err(|error| error.to_string())
}

fn answer(accounts: &Accounts, maildirs: &Maildirs, request: Request) -> Result<Value, AdministrationError> {
    let time = |unix_s: Option<i64>| unix_s.map(rfc3339);
    Ok(match request {
        Request::AccountAdd { address, password } => {
            let password = password.map(secret);
            let address: Address = accounts.add_account(&address, password.as_ref())?;
            let folder = Folder::inbox(&address.lookup_key());
            if let Err(error) = maildirs.ensure(&folder) {
                // The first delivery makes it.
                tracing::warn!(%error, "the new account's mailbox could not be made yet");
            }
            json!({ "address": address.to_string(), "maildir": maildirs.path(&folder) })
        }
        Request::AccountList => {
            let usage = |login: &str| maildirs.usage().count(login).ok();
            let accounts = accounts.list_accounts()?.into_iter().map(|account| {
                json!({
                    "used_octets": usage(&account.login),
                    "quota_octets": accounts.quota(&account.login),
                    "login": account.login,
                    "created": rfc3339(account.created_unix_s),
                    "has_password": account.has_password,
                    "app_passwords": account.app_passwords,
                    "last_used": time(account.last_used_unix_s),
                })
            });
            json!({ "accounts": accounts.collect::<Vec<_>>() })
        }
        Request::AccountShow { address } => show(accounts, maildirs, &address)?,
        Request::AccountRemove { address } => {
            let login = accounts.remove_account(&address)?;
            json!({ "login": login, "maildir": maildirs.path(&Folder::inbox(&login)) })
        }
        Request::AccountPassword { address, password } => {
            json!({ "login": accounts.set_password(&address, &secret(password))? })
        }
        Request::AccountCap { address, cap } => {
            let login = accounts.set_cap(&address, cap.map(|(hourly, daily)| Cap { hourly, daily }))?;
            let (Cap { hourly, daily }, (hour, day)) = (accounts.cap(&login), accounts.caps().used(&login));
            json!({ "login": login, "hourly": hourly, "daily": daily, "used_hour": hour, "used_day": day })
        }
        Request::AccountQuota { address, quota } => {
            let quota = quota.map(|quota| match quota {
                QuotaRequest::Unlimited => Quota::Unlimited,
                QuotaRequest::Octets(octets) => Quota::Octets(octets),
            });
            let login = accounts.set_quota(&address, quota)?;
            let (used, quota) = (maildirs.usage().count(&login).ok(), accounts.quota(&login));
            json!({ "login": login, "used_octets": used, "quota_octets": quota })
        }
        Request::AppPasswordAdd { address, name, full } => {
            let scope = if full { Scope::Full } else { Scope::Submission };
            let password = accounts.add_app_password(&address, &name, scope)?;
            let password = String::from_utf8_lossy(password.expose());
            json!({ "login": address.to_lowercase(), "name": name, "scope": scope.name(), "password": password })
        }
        Request::AppPasswordList { address } => {
            json!({ "app_passwords": app_passwords(accounts, address.as_deref())? })
        }
        Request::AppPasswordRemove { address, name } => {
            json!({ "login": accounts.remove_app_password(&address, &name)?, "name": name })
        }
        Request::AliasAdd { source, targets } => {
            let alias = accounts.add_alias(&source, &targets)?;
            json!({ "source": alias.source, "targets": alias.targets })
        }
        Request::AliasShow { source } => {
            let alias = accounts.show_alias(&source)?;
            json!({ "source": alias.source, "targets": alias.targets })
        }
        Request::AliasTest { address } => {
            let test = accounts.test_alias(&address)?;
            let forwards: Vec<String> = test.ends.forwards.iter().map(ToString::to_string).collect();
            json!({
                "address": test.address.to_string(),
                "rule": test.rule,
                "alias": test.alias,
                "mailboxes": test.ends.mailboxes,
                "forwards": forwards,
            })
        }
        Request::AliasImport { file, replace } => json!({ "aliases": accounts.import_aliases(&file, replace)? }),
        Request::AliasExport => json!({ "file": alias_file::write(&accounts.list_aliases()) }),
        Request::AliasRotateKeys => {
            accounts.rotate_return_path_keys()?;
            json!({})
        }
        Request::Access(request) => access(accounts, request)?,
        Request::AliasRemove { source, target } => {
            json!({ "source": accounts.remove_alias(&source, target.as_deref())?, "target": target })
        }
    })
}

fn app_passwords(accounts: &Accounts, address: Option<&str>) -> Result<Vec<Value>, AdministrationError> {
    let list = accounts.list_app_passwords(address)?.into_iter().map(|password| {
        json!({
            "login": password.login,
            "name": password.name,
            "scope": password.scope,
            "created": rfc3339(password.created_unix_s),
            "last_used": password.last_used_unix_s.map(rfc3339),
        })
    });
    Ok(list.collect())
}

/// All that is known of an account, and no secret.
fn show(accounts: &Accounts, maildirs: &Maildirs, address: &str) -> Result<Value, AdministrationError> {
    let account = accounts.show_account(address)?;
    let login = account.login;
    let (aliases, aliases_total) = accounts.aliases_of(&login, ALIASES_SHOWN_MAX);
    let (Cap { hourly, daily }, (hour, day)) = (accounts.cap(&login), accounts.caps().used(&login));
    Ok(json!({
        "created": rfc3339(account.created_unix_s),
        "has_password": account.has_password,
        "last_used": account.last_used_unix_s.map(rfc3339),
        "maildir": maildirs.path(&Folder::inbox(&login)),
        "used_octets": maildirs.usage().count(&login).ok(),
        "quota_octets": accounts.quota(&login),
        "hourly": hourly,
        "daily": daily,
        "used_hour": hour,
        "used_day": day,
        "aliases": aliases,
        "aliases_total": aliases_total,
        "app_passwords": app_passwords(accounts, Some(&login))?,
        "login": login,
    }))
}

fn access(accounts: &Accounts, request: AccessRequest) -> Result<Value, AdministrationError> {
    Ok(match request {
        AccessRequest::Add { allow, subject, recipient } => {
            let access = if allow { Access::Allow } else { Access::Refuse };
            rule(&accounts.add_access(access, &subject, recipient.as_deref())?)
        }
        AccessRequest::List => {
            let rules = accounts.list_access()?.into_iter().map(|listed| {
                let mut rule = rule(&listed.rule);
                rule["created"] = rfc3339(listed.created_unix_s).into();
                rule
            });
            json!({ "rules": rules.collect::<Vec<_>>() })
        }
        AccessRequest::Remove { subject, recipient } => {
            let removed = accounts.remove_access(&subject, recipient.as_deref())?;
            json!({ "subject": removed.to_string(), "recipient": recipient })
        }
    })
}

fn rule(rule: &Rule) -> Value {
    json!({
        "access": rule.access.name(),
        "subject": rule.subject.to_string(),
        "recipient": rule.recipient.as_ref().map(ToString::to_string),
    })
}

fn secret(text: String) -> Secret {
    Secret::new(text.into_bytes())
}
