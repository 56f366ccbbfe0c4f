//! `gatepost-home account`: who logs in and has a mailbox.

use clap::{Args, Subcommand};
use gatepost_runtime::config::Size;
use gatepost_runtime::random;
use serde_json::Value;

use super::{Context, Failure, list, pretty, print, secret, table, text};
use crate::accounts::password;
use crate::administration::{QuotaRequest, Request};

/// Accounts.
#[derive(Clone, Debug, Args)]
pub struct AccountArgs {
    #[command(subcommand)]
    command: AccountCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum AccountCommand {
    /// Make an account. Its password is asked for, or read from the first line of stdin.
    Add {
        /// Its address, which is also its login name.
        address: String,
        #[command(flatten)]
        how: PasswordArgs,
        /// Without a password: only app passwords can log in.
        #[arg(long, conflicts_with = "generate")]
        no_password: bool,
    },
    /// List the accounts.
    List {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show one account: its addresses, its mailbox, what it may send, its app passwords.
    Show {
        /// Its address.
        address: String,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Remove an account. Its mail stays where it is.
    Remove {
        /// Its address.
        address: String,
    },
    /// Set what an account's mailbox may hold, and show what it does.
    Quota {
        /// Its address.
        address: String,
        /// Such as "2 GiB"; "none" for no bound, "default" for what the config says for all.
        #[arg(value_parser = quota)]
        size: QuotaChoice,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Set an account's password, asked for or read from the first line of stdin.
    Password {
        /// Its address.
        address: String,
        #[command(flatten)]
        how: PasswordArgs,
    },
    /// Say how many recipients elsewhere an account may write to.
    Cap {
        /// Its address.
        address: String,
        /// In an hour.
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000), required_unless_present = "default")]
        hourly: Option<u32>,
        /// In a day.
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000), required_unless_present = "default")]
        daily: Option<u32>,
        /// As many as the config says.
        #[arg(long, conflicts_with_all = ["hourly", "daily"])]
        default: bool,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Clone, Copy, Debug)]
enum QuotaChoice {
    Default,
    Own(QuotaRequest),
}

fn quota(text: &str) -> Result<QuotaChoice, String> {
    match text {
        "default" => Ok(QuotaChoice::Default),
        "none" => Ok(QuotaChoice::Own(QuotaRequest::Unlimited)),
        _ => text.parse::<Size>().map(|size| QuotaChoice::Own(QuotaRequest::Octets(size.0))),
    }
}

#[derive(Clone, Debug, Args)]
struct PasswordArgs {
    /// Make a random password and print it, once.
    #[arg(long)]
    generate: bool,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

impl PasswordArgs {
    fn password(&self, address: &str) -> Result<String, Failure> {
        if self.generate {
            let password = password::generate(random::bytes());
            Ok(String::from_utf8_lossy(password.expose()).into_owned())
        } else {
            secret::read(address).map(|password| password.to_string())
        }
    }

    fn show(&self, done: &str, mut answer: Value, password: String) -> Result<(), Failure> {
        if self.json {
            if self.generate {
                answer["password"] = password.into();
            }
            return print(&pretty(&answer));
        }
        if self.generate {
            eprintln!("{done} Its password, shown this once:");
            return print(&format!("{password}\n"));
        }
        print(&format!("{done}\n"))
    }
}

pub(super) fn run(context: &Context<'_>, args: AccountArgs) -> Result<(), Failure> {
    match args.command {
        AccountCommand::Add { address, how, no_password: true } => {
            let answer = context.administer(Request::AccountAdd { address, password: None })?;
            how.show(&format!("Made {}.", text(&answer, "address")), answer, String::new())
        }
        AccountCommand::Add { address, how, .. } => {
            let password = how.password(&address)?;
            let answer = context.administer(Request::AccountAdd { address, password: Some(password.clone()) })?;
            how.show(&format!("Made {}.", text(&answer, "address")), answer, password)
        }
        AccountCommand::Password { address, how } => {
            let password = how.password(&address)?;
            let answer = context.administer(Request::AccountPassword { address, password: password.clone() })?;
            how.show(&format!("Changed the password of {}.", text(&answer, "login")), answer, password)
        }
        AccountCommand::Show { address, json } => {
            let answer = context.administer(Request::AccountShow { address })?;
            print(&if json { pretty(&answer) } else { shown(&answer) })
        }
        AccountCommand::Remove { address } => {
            let answer = context.administer(Request::AccountRemove { address })?;
            print(&format!("Removed {}. Its mail stays in {}\n", text(&answer, "login"), text(&answer, "maildir")))
        }
        AccountCommand::Cap { address, hourly, daily, json, .. } => {
            let answer = context.administer(Request::AccountCap { address, cap: hourly.zip(daily) })?;
            let [login, hourly, daily, hour, day] =
                ["login", "hourly", "daily", "used_hour", "used_day"].map(|name| text(&answer, name));
            print(&if json {
                pretty(&answer)
            } else {
                format!(
                    "{login} may write to {hourly} recipients in an hour ({hour} so far) and {daily} in a day ({day} so far).\n"
                )
            })
        }
        AccountCommand::Quota { address, size, json } => {
            let quota = match size {
                QuotaChoice::Default => None,
                QuotaChoice::Own(quota) => Some(quota),
            };
            let answer = context.administer(Request::AccountQuota { address, quota })?;
            let said = format!("{} holds {} of {}.\n", text(&answer, "login"), used(&answer), bound(&answer));
            print(&if json { pretty(&answer) } else { said })
        }
        AccountCommand::List { json } => {
            let answer = context.administer(Request::AccountList)?;
            print(&if json { pretty(&answer) } else { for_people(&answer) })
        }
    }
}

fn for_people(answer: &Value) -> String {
    let rows = list(answer, "accounts").iter().map(|account| {
        let mut row = ["login", "has_password", "app_passwords"].map(|name| text(account, name)).to_vec();
        row.extend([used(account), bound(account), text(account, "created"), text(account, "last_used")]);
        row
    });
    table(
        &["ACCOUNT", "PASSWORD", "APP PASSWORDS", "USED", "QUOTA", "CREATED", "LAST LOGIN"],
        rows,
        "No account yet: gatepost-home account add ADDRESS",
    )
}

/// A line for each thing there is to know.
fn shown(answer: &Value) -> String {
    let field = |name| text(answer, name);
    let aliases = list(answer, "aliases");
    let more = answer["aliases_total"].as_u64().unwrap_or(0).saturating_sub(aliases.len() as u64);
    let mut addresses: Vec<String> = vec![field("login")];
    addresses.extend(aliases.iter().filter_map(Value::as_str).map(|alias| format!("{alias} (alias)")));
    addresses.extend((more > 0).then(|| format!("and {more} more (gatepost-home alias list)")));
    let password = if answer["has_password"] == true { "yes" } else { "none: only app passwords log in" };
    let mut lines = vec![("addresses", addresses.join(", "))];
    lines.push(("mailbox", format!("holds {} of {}, in {}", used(answer), bound(answer), field("maildir"))));
    for (name, most, span, so_far) in
        [("may write to", "hourly", "an hour", "used_hour"), ("", "daily", "a day", "used_day")]
    {
        lines.push((name, format!("{} recipients elsewhere in {span} ({} so far)", field(most), field(so_far))));
    }
    lines.push(("password", password.to_owned()));
    let passwords = list(answer, "app_passwords");
    if passwords.is_empty() {
        lines.push(("app passwords", "none".to_owned()));
    }
    for (nth, password) in passwords.iter().enumerate() {
        let what = if password["scope"] == "submission" { "only sends mail" } else { "opens and sends mail" };
        let last =
            password["last_used"].as_str().map_or_else(|| "never used".to_owned(), |at| format!("last used {at}"));
        let name = if nth == 0 { "app passwords" } else { "" };
        lines.push((name, format!("{:?}: {what}, {last}", text(password, "name"))));
    }
    lines.push(("made", field("created")));
    lines.push(("last login", answer["last_used"].as_str().unwrap_or("never").to_owned()));
    lines
        .into_iter()
        .fold(format!("{}\n", field("login")), |shown, (name, what)| shown + &format!("  {name:<14} {what}\n"))
}

fn used(account: &Value) -> String {
    account["used_octets"].as_u64().map_or_else(|| "-".to_owned(), about)
}

fn bound(account: &Value) -> String {
    account["quota_octets"].as_u64().map_or_else(|| "no quota".to_owned(), about)
}

/// A size for people: three digits and a unit.
fn about(octets: u64) -> String {
    let units = [("TiB", 1u64 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.into_iter().find(|(_, unit)| octets >= *unit) {
        Some((name, unit)) => {
            let (whole, tenths) = (octets / unit, octets % unit * 10 / unit);
            if whole >= 100 || tenths == 0 { format!("{whole} {name}") } else { format!("{whole}.{tenths} {name}") }
        }
        None => format!("{octets} B"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_account_is_shown_with_its_addresses_and_bounds_and_no_more_than_is_there() {
        let phone = json!({ "name": "phone", "scope": "submission", "last_used": null });
        let shown = shown(&json!({
            "login": "alice@example.org", "created": "2026-11-20T12:00:00Z", "has_password": true, "last_used": null,
            "maildir": "/var/mail", "used_octets": 1024, "quota_octets": 2048, "hourly": 5, "daily": 9, "used_hour": 1,
            "used_day": 2, "aliases": ["sales@example.org"], "aliases_total": 3, "app_passwords": [phone],
        }));
        for part in [
            "sales@example.org (alias), and 2 more",
            "holds 1 KiB of 2 KiB, in /var/mail",
            "5 recipients elsewhere in an hour (1 so far)",
            "9 recipients elsewhere in a day (2 so far)",
            "\"phone\": only sends mail, never used",
            "last login     never",
        ] {
            assert!(shown.contains(part), "{shown}");
        }
    }

    #[test]
    fn the_table_shows_each_account() {
        let account = json!({ "login": "alice@example.org", "has_password": true, "app_passwords": 2, "used_octets": 1_610_612_736_u64, "quota_octets": null, "created": "2026-11-20T12:00:00Z", "last_used": null });
        let shown = for_people(&json!({ "accounts": [account] }));
        for part in ["alice@example.org", "yes", "2", "1.5 GiB", "no quota", "2026-11-20T12:00:00Z", "-"] {
            assert!(shown.contains(part), "{shown}");
        }
        assert!(for_people(&json!({ "accounts": [] })).contains("account add"));
    }
}
