//! New rows and new identities.

use super::CourseFacts;
use crate::error::ApiFailure;
use lyceum_model::{
    Desired, DesktopId, DraftId, Generation, Hostname, MachineSize, Persistence, Phase, UnixMillis,
    UserId,
};
use lyceum_store::desktops::{Desktop, Owner, Source};
use std::collections::HashSet;
use std::net::Ipv4Addr;

/// MAC addresses, IPv4 addresses and host names that are given out already.
pub struct Taken {
    macs: HashSet<String>,
    addresses: HashSet<String>,
    names: HashSet<String>,
}

impl Taken {
    /// Of these desktops.
    pub fn of(all: &[Desktop]) -> Taken {
        Taken {
            macs: all.iter().map(|d| d.mac.clone()).collect(),
            addresses: all.iter().map(|d| d.address.clone()).collect(),
            names: all.iter().map(|d| d.hostname.as_str().to_owned()).collect(),
        }
    }

    fn mac(&mut self) -> Result<String, ApiFailure> {
        for _ in 0..1000 {
            let b = random::<3>()?;
            let mac = format!("52:54:00:{:02x}:{:02x}:{:02x}", b[0], b[1], b[2]);
            if self.macs.insert(mac.clone()) {
                return Ok(mac);
            }
        }
        Err(ApiFailure::internal("no MAC address is left to give out"))
    }

    /// One /24 per desktop out of 10.64.0.0/10, so that each desktop's network is its own.
    fn address(&mut self) -> Result<String, ApiFailure> {
        for n in 0..(1u32 << 14) {
            let network = (10u32 << 24) | (64 << 16) | (n << 8);
            let address = Ipv4Addr::from(network | 15).to_string();
            if self.addresses.insert(address.clone()) {
                return Ok(address);
            }
        }
        Err(ApiFailure::internal(
            "no address is left to give out: delete desktops that nobody uses",
        ))
    }

    fn name(&mut self, text: &str) -> Hostname {
        let plain = Hostname::from_text(text, "");
        if self.names.insert(plain.as_str().to_owned()) {
            return plain;
        }
        for n in 2u32.. {
            let name = Hostname::from_text(text, &n.to_string());
            if self.names.insert(name.as_str().to_owned()) {
                return name;
            }
        }
        plain
    }
}

fn random<const N: usize>() -> Result<[u8; N], ApiFailure> {
    let mut bytes = [0u8; N];
    getrandom::fill(&mut bytes)
        .map_err(|e| ApiFailure::internal(format!("the system gave no random bytes: {e}")))?;
    Ok(bytes)
}

/// 32 hex digits for `/etc/machine-id`.
pub fn machine_id() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// A new VM generation id.
pub fn vm_generation_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// A desktop that never ran.
pub fn desktop(
    course: &CourseFacts,
    user: &UserId,
    login: &str,
    taken: &mut Taken,
    now: UnixMillis,
) -> Result<Desktop, ApiFailure> {
    let mut d = blank(
        Owner::Course {
            course: course.id.clone(),
            user: user.clone(),
        },
        taken.name(login),
        course.size,
        taken,
        now,
    )?;
    d.persistence = course.persistence;
    d.outside = course.outside;
    d.release = course.release.as_ref().map(|(id, _)| id.clone());
    Ok(d)
}

/// The machine of a draft; it reaches the outside, since software is installed in it.
pub fn draft(
    draft: &DraftId,
    size: MachineSize,
    taken: &mut Taken,
    now: UnixMillis,
) -> Result<Desktop, ApiFailure> {
    let name = taken.name("draft");
    let mut d = blank(
        Owner::Draft {
            draft: draft.clone(),
        },
        name,
        size,
        taken,
        now,
    )?;
    d.persistence = Persistence::Persistent;
    d.outside = true;
    d.source = Source::Cold;
    Ok(d)
}

fn blank(
    owner: Owner,
    hostname: Hostname,
    size: MachineSize,
    taken: &mut Taken,
    now: UnixMillis,
) -> Result<Desktop, ApiFailure> {
    Ok(Desktop {
        id: DesktopId::new(),
        owner,
        hostname,
        size,
        persistence: Persistence::Throwaway,
        outside: false,
        desired: Desired::Stopped,
        source: Source::Fork,
        renew: false,
        hand_out_delta: None,
        order: None,
        ordered_at: now,
        gave_up: false,
        generation: Generation(0),
        handed_out: Generation(0),
        moving_to: None,
        release: None,
        host: None,
        overlay: None,
        delta: None,
        saving_delta: None,
        vm_generation_id: vm_generation_id(),
        machine_id: machine_id(),
        mac: taken.mac()?,
        address: taken.address()?,
        observed_generation: Generation(0),
        phase: Phase::Stopped,
        detail: String::new(),
        started_by: None,
        cold_reason: None,
        guest_address: None,
        ssh_host_key: None,
        usable_ms: None,
        delta_bytes: None,
        suspend_ms: None,
        notice: None,
        restarts: 0,
        restarts_since: now,
        changed: now,
        created: now,
    })
}
