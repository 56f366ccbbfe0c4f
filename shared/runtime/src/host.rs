//! This machine: what it calls itself, who its users are. Asked once at start, or by a command.

use std::fs;

/// The system's own name for itself, such as `raspberrypi`. May be no valid domain.
pub fn name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The name of a user by its number, as `/etc/passwd` has it; `None` if it is not there.
pub fn user(uid: u32) -> Option<String> {
    let passwd = fs::read(PASSWD).ok()?;
    user_in(&String::from_utf8_lossy(&passwd), uid)
}

/// The number of the user this process runs as.
pub fn uid() -> u32 {
    rustix::process::getuid().as_raw()
}

/// Where local users are listed. Users of a directory service are not there; they are known by their login.
const PASSWD: &str = "/etc/passwd";

fn user_in(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        (number.parse() == Ok(uid) && !name.is_empty()).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_number() {
        let passwd =
            "root:x:0:0:root:/root:/bin/sh\nbroken\n:x:5:5::/:\nalice:x:1000:1000:Alice,,,:/home/alice:/bin/sh\n";
        for (uid, name) in [(0, Some("root")), (1000, Some("alice")), (5, None), (1, None)] {
            assert_eq!(user_in(passwd, uid).as_deref(), name, "{uid}");
        }
        assert!(!name().is_empty());
    }
}
