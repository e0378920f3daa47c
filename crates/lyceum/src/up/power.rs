//! Power of the hosts of one machine: a host that is off is an agent that does not run. A file per host says
//! so; the agent's own command makes it, the controller's removes it, and the supervisor obeys it.

use super::layout::{Layout, host_name};
use crate::context::Context;
use crate::exit::{self, Exit};
use lyceum_api::allocation::{PowerMethod, PowerPut, PowerSetup, PowerShown};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Name of the controller's command.
const COMMAND: &str = "up";

/// There while the host is off.
pub fn flag(layout: &Layout, host: &str) -> PathBuf {
    layout.path("power").join(format!("{host}.off"))
}

/// What a host's agent switches it off with.
pub fn off(layout: &Layout, host: &str) -> Vec<String> {
    vec!["touch".into(), flag(layout, host).display().to_string()]
}

/// What the controller brings hosts up with.
pub fn commands(layout: &Layout) -> BTreeMap<String, Vec<String>> {
    let flag = flag(layout, "{host}").display().to_string();
    BTreeMap::from([(
        COMMAND.to_owned(),
        vec!["rm".to_owned(), "-f".to_owned(), flag],
    )])
}

/// Starting the classroom switches all its hosts on.
pub fn all_on(layout: &Layout) -> anyhow::Result<()> {
    let dir = layout.path("power");
    let trouble = |e: std::io::Error| {
        Exit::coded(
            exit::FAILED,
            format!(
                "{} can't be used: {e}; check its owner and the space on its disk",
                dir.display()
            ),
        )
    };
    std::fs::create_dir_all(&dir).map_err(trouble)?;
    for entry in std::fs::read_dir(&dir).map_err(trouble)? {
        std::fs::remove_file(entry.map_err(trouble)?.path()).map_err(trouble)?;
    }
    Ok(())
}

/// Tells the controller how the hosts are switched, where nobody has said it otherwise.
pub async fn set_up(context: &Context, hosts: usize) -> anyhow::Result<()> {
    for n in 0..hosts {
        let path = format!("hosts/{}/power", host_name(n));
        let shown: PowerShown = context.client.get(&path).await?;
        if shown.setup != PowerSetup::default() {
            continue;
        }
        let body = PowerPut {
            setup: PowerSetup {
                method: Some(PowerMethod::Command {
                    name: COMMAND.into(),
                }),
                ..PowerSetup::default()
            },
            password: None,
        };
        let _: PowerShown = context.client.put(&path, &body).await?;
    }
    Ok(())
}
