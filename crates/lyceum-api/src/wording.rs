//! Texts that people read, in a form that a page can put into another language: beside the English text
//! stands a code that does not change, and what is filled in.
//!
//! The English text is what is stored, logged and said between the parts. This catalogue knows the forms in
//! which such texts are written; a text in none of them is shown as it is. A test keeps the catalogue, the
//! sources and the page's dictionary together.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// How a text was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Wording {
    /// Which text; does not change.
    pub code: String,
    /// What is filled in. A value may itself be a text with a wording beside this one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, String>,
}

/// Wordings by their English text. One that is missing has none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Wordings(pub BTreeMap<String, Wording>);

impl Wordings {
    /// Whether nothing is known of any text.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// How deep texts are looked for within texts.
const DEPTH: usize = 4;

/// The wordings of texts, and of those within them.
pub fn wordings<'a>(texts: impl IntoIterator<Item = &'a str>) -> Wordings {
    let mut all = BTreeMap::new();
    for text in texts {
        collect(text, DEPTH, &mut all);
    }
    Wordings(all)
}

fn collect(text: &str, depth: usize, all: &mut BTreeMap<String, Wording>) {
    if text.is_empty() || depth == 0 || all.contains_key(text) {
        return;
    }
    if let Some(wording) = wording(text) {
        for value in wording.params.values() {
            collect(value, depth - 1, all);
        }
        all.insert(text.to_owned(), wording);
    }
}

/// How this text was made; `None`: in no known way. Of several forms that fit, the one that says most itself.
pub fn wording(text: &str) -> Option<Wording> {
    CATALOGUE
        .iter()
        .filter_map(|(code, form)| Some((code, form, fit(form, text)?)))
        .max_by_key(|(_, form, params)| {
            let names: usize = params.iter().map(|(name, _)| name.len() + 2).sum();
            form.len() - names
        })
        .map(|(code, _, params)| Wording {
            code: (*code).to_owned(),
            params: params
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        })
}

/// What stands in `text` for each `{name}` of `form`.
fn fit<'f, 't>(form: &'f str, text: &'t str) -> Option<Vec<(&'f str, &'t str)>> {
    let (head, mut form) = form.split_once('{').unwrap_or((form, ""));
    let mut text = text.strip_prefix(head)?;
    let mut found = Vec::new();
    while let Some((name, rest)) = form.split_once('}') {
        let (between, next) = match rest.split_once('{') {
            Some((between, next)) => (between, Some(next)),
            None => (rest, None),
        };
        let value = match next {
            Some(_) => &text[..text.find(between)?],
            None => text.strip_suffix(between)?,
        };
        if value.is_empty() {
            return None;
        }
        found.push((name, value));
        text = &text[value.len() + between.len()..];
        form = next.unwrap_or("");
    }
    text.is_empty().then_some(found)
}

/// Code and form of every known text.
pub const CATALOGUE: &[(&str, &str)] = &[
    // Courses' networks.
    (
        "network.gateway_silent",
        "the gateway does not say that it is there: run `lyceum gateway` on the controller's machine, as root",
    ),
    (
        "network.tool_missing",
        "{program} is not here, and the network can't be set up without it: install the package {package}",
    ),
    (
        "network.rights",
        "{what} was not permitted ({said}): courses' networks need root, or CAP_NET_ADMIN; without it leave the network out of the configuration and desktops get QEMU's user network",
    ),
    ("network.tables_gone", "the firewall's tables were gone"),
    (
        "network.order_changed",
        "the order of the firewall's rules was changed",
    ),
    (
        "network.rules_added",
        "added to the firewall: {what} ({n} in all)",
    ),
    (
        "network.rules_gone",
        "gone from the firewall: {what} ({n} in all)",
    ),
    (
        "network.rules_changed",
        "changed in the firewall: {gone} gone, {new} new ({n} and {m} in all)",
    ),
    (
        "network.devices_changed",
        "the network's devices were changed; put right by {n} steps, the first: {first}",
    ),
    (
        "network.forwarding_off",
        "{key} was 0: desktops had no way out",
    ),
    (
        "network.dnsmasq_ended",
        "dnsmasq of segment {number} had ended ({status}; {last})",
    ),
    (
        "network.host_not_told",
        "host {host} could not be told of courses' networks: {why}",
    ),
    (
        "network.not_plugged",
        "the desktop can't be plugged into its course's network: {why}",
    ),
    (
        "network.host_has_none",
        "the desktop belongs into its course's network, and this host has none: add [host.network] to its configuration",
    ),
    (
        "network.other_kind",
        "only one of {from} and {to} takes part in courses' networks: a running desktop needs the same on both",
    ),
    (
        "network.full",
        "the course's network has no address left: delete desktops that nobody uses",
    ),
    (
        "network.tap_gone",
        "the network device {name} is gone: the host agent makes it anew at the next start",
    ),
    // SPICE.
    (
        "spice.off",
        "SPICE clients are not switched on for this desktop's course: its teacher can do that, and then it has to be started again",
    ),
    (
        "spice.without",
        "this desktop runs without SPICE: it was started before its course allowed it, or its host lacks the package qemu-system-modules-spice. Once that is in order, start it again",
    ),
    (
        "spice.no_port",
        "this classroom has no port for SPICE clients: set spice_listen in the controller's configuration",
    ),
    (
        "spice.no_module",
        "the host of this desktop lacks QEMU's module for SPICE, the package qemu-system-modules-spice",
    ),
    (
        "spice.not_up",
        "the desktop is not up yet: try again when it runs",
    ),
    // Plans and power.
    (
        "plan.cooling_on",
        "cooling down: it was switched on {minutes} min ago; hosts are given {given} min before the next is switched off",
    ),
    (
        "plan.cooling_on_short",
        "cooling down: it was switched on {minutes} min ago",
    ),
    (
        "plan.cooling_off",
        "cooling down: it was switched off {minutes} min ago",
    ),
    (
        "plan.one_at_a_time",
        "one power action at a time: {host} is being switched just now",
    ),
    (
        "plan.group_busy",
        "one power action at a time: another host of its group is being switched",
    ),
    ("plan.not_switchable", "it can't be switched from afar"),
    ("plan.desktop_fixed", "{desktop} is on it: {why}"),
    ("plan.on_its_way", "a desktop is on its way to it"),
    (
        "plan.drained_or_maintenance",
        "it is being drained or in maintenance",
    ),
    ("plan.reserve", "it is held in reserve"),
    ("plan.not_switched_on", "not switched on: {why}"),
    (
        "plan.no_more_hosts",
        "{free} seats are free on {on} hosts; more than {wanted} and at least {least} hosts are wanted, and no other host can be switched on",
    ),
    (
        "plan.stays_off",
        "stays off: {free} seats will be free, more than {wanted} are wanted",
    ),
    (
        "plan.emptied",
        "{host} is emptied and switched off; {seats} seats stay free on {hosts} hosts",
    ),
    (
        "plan.makes_room",
        "makes room on {host} for larger ones of a host that is switched off",
    ),
    ("plan.stays_on", "stays on: {why}"),
    ("plan.stays_on_least", "stays on: at least {n} stay on"),
    (
        "plan.stays_on_seats",
        "stays on: without it {left} seats would be free, and {wanted} are wanted",
    ),
    (
        "plan.stays_on_fit",
        "stays on: its desktops don't fit on the others",
    ),
    (
        "plan.peak",
        "its average of {cpu} % is a peak: fewer than {share} % of its samples are above {high} %",
    ),
    (
        "plan.no_heavy",
        "it is at {cpu} %, but none of its desktops is above {high} %: there is nobody to make room for",
    ),
    (
        "plan.below",
        "below the threshold: no host is above {high} % for long with a heavy desktop on it",
    ),
    (
        "plan.no_idle",
        "no host is below {low} % and could take desktops",
    ),
    (
        "plan.cpu_unknown",
        "its CPU use or number of cores is not known, so nothing is decided about it",
    ),
    (
        "plan.past_high",
        "target would pass the high mark: {host} would be at {cpu} %",
    ),
    (
        "plan.light_gives",
        "{host} is at {cpu} % with {heavy} heavy desktops; this one is light and gives them {share} % of the host, {to} will be at {then} %",
    ),
    (
        "plan.too_little",
        "moving {n} more light desktops would gain less than {gain} % each",
    ),
    ("plan.no_idle_can", "no idle host can take it: {why}"),
    (
        "plan.heavy_cores",
        "the heavy desktops of {host} ask for {here} times its cores; {to} is idle and will be asked for {there} times its own",
    ),
    (
        "plan.goes_on",
        "makes room on {host}, goes on to {to} after that",
    ),
    ("plan.seats_taken", "all its {seats} seats are taken"),
    (
        "plan.memory_free",
        "{needs} MiB are needed and {free} MiB are free",
    ),
    (
        "plan.nominal_limit",
        "nominal memory would pass its limit of {limit} MiB",
    ),
    ("plan.other_model", "its CPU model is another"),
    (
        "plan.owner_there",
        "another desktop of the same person is there",
    ),
    (
        "plan.course_there",
        "more desktops of the same course are there",
    ),
    ("plan.being_moved", "it is being moved"),
    ("plan.cant_move", "it can't be moved"),
    ("plan.being_switched_off", "it is being switched off"),
    ("plan.maintenance", "it is in maintenance"),
    (
        "plan.nothing_two",
        "there is nothing to gain: fewer than two hosts take part",
    ),
    (
        "plan.nothing_even",
        "there is nothing to gain: hosts use {low} to {high} % of their memory, and no move makes that more even",
    ),
    (
        "plan.counts",
        "{host} has {n} desktops and {to} has {m}; {each} each is even",
    ),
    (
        "plan.memory_even",
        "{host} uses {used} % of its memory and {to} uses {then} %; {even} % is even",
    ),
    ("plan.no_hosts", "it has no hosts"),
    (
        "plan.paused",
        "a plan was carried out {minutes} min ago; the next comes {pause} min after it, or when a person orders it",
    ),
    ("plan.nobody", "there is nothing to do: no host takes part"),
    ("plan.left", "left as it is: {why}"),
    ("plan.drained_but", "{host} is being drained, but {why}"),
    ("plan.being_drained", "{host} is being drained"),
    (
        "plan.drained_no_place",
        "{host} is being drained, but no other host can take it: {why}",
    ),
    ("plan.settings_say", "the settings say so"),
    ("plan.timetable_says", "the timetable says so: {why}"),
    ("plan.asked_for", "it was asked for"),
    ("plan.more_wanted", "more seats are wanted"),
    ("plan.enough_seats", "the other hosts have seats enough"),
    ("plan.called_off", "it was called off"),
    (
        "plan.interrupted",
        "it was interrupted for too long, so the classroom may be another by now",
    ),
    (
        "plan.class_first",
        "{n} desktops are being started, and they come first",
    ),
    ("plan.other_mode", "{mode} is wanted by now"),
    ("plan.more_by_now", "more seats are wanted by now"),
    (
        "plan.not_all_moved",
        "not all of its desktops were moved away: {why}",
    ),
    ("plan.steps_done", "{done} of {all} steps were done"),
    (
        "plan.agent_unknown",
        "left as it is: its agent has not said yet what it is",
    ),
    (
        "plan.maintenance_left",
        "left as it is: it is in maintenance",
    ),
    ("plan.silent_left", "left as it is: its agent is not heard"),
    (
        "plan.trusted_again",
        "left as it is: {why}; it is trusted again {s} s after it came back",
    ),
    ("plan.no_longer_there", "it does not run on {host} any more"),
    ("plan.instead_of", "{host} did not come up"),
    (
        "power.not_up",
        "it did not come up within {s} s{words}; look at it, then switch it on by hand",
    ),
    (
        "power.still_there",
        "it was told to go off and is still there after {s} s",
    ),
    ("power.flapped", "its agent was not heard for a while"),
    ("power.silent", "its agent is not heard"),
    ("power.not_off", "it was not switched off: {why}"),
    ("power.coming", "{n} desktops are on their way to it"),
    ("power.on_it", "{n} desktops are on it"),
    (
        "power.no_method",
        "nothing is set up that could bring it up again",
    ),
    (
        "power.no_agent_off",
        "its agent was not told how to switch its machine off (power_off in its configuration)",
    ),
    (
        "power.no_command",
        "the controller's configuration has no power command {name}",
    ),
    ("power.cant", "the host can't be switched: {why}"),
    (
        "plan.second",
        "another plan is being carried out: wait until it is over, or stop it",
    ),
    (
        "plan.too_old",
        "the plan is older than 10 minutes, so the classroom may be another by now: plan again",
    ),
    // Restore points.
    ("desktop.going_back", "going back to a restore point"),
    ("point.stays", "{why}. The desktop stays as it was"),
    ("point.damaged", "the restore point is damaged: {why}"),
    (
        "point.no_room",
        "there is no room for it on the slow tier: it needs about {need} MiB, and {free} MiB are free. Delete restore points that nobody needs, or add space",
    ),
    (
        "point.disk_alone",
        "It was booted cold, so this is its disk, without its windows.",
    ),
    (
        "point.disk_alone_cut",
        "It was booted cold, so this is its disk, without its windows, and as a power cut would leave it: {why}",
    ),
    (
        "point.suspended",
        "it is suspended and stays as it is until it is started: start it first",
    ),
    (
        "point.stopped",
        "it does not run, and nothing is kept of a throw-away desktop that does not run: start it first",
    ),
    (
        "point.silent",
        "nothing is heard of its host, so it may still run there: see to the host first",
    ),
    ("point.other_order", "another order about it is under way"),
    (
        "point.not_taken",
        "no restore point can be taken of it: {why}",
    ),
    (
        "point.nobody_runs",
        "no desktop of this course runs, so there is nothing to take a restore point of: start them first",
    ),
    (
        "point.nothing_to_undo",
        "there is no restore to undo: what was before one is kept until the next class",
    ),
    (
        "point.not_kept",
        "what is there now could not be kept: {why}",
    ),
    (
        "point.teachers_only",
        "in this course only teachers restore desktops: ask yours",
    ),
    (
        "point.already",
        "the desktop of {name} is being restored already: wait until that is over, or call it off",
    ),
    (
        "point.power_cut",
        "It was booted cold: its disk is kept as a power cut would leave it.",
    ),
    (
        "point.disk_booted",
        "its disk was restored, so it is booted",
    ),
    (
        "point.own_disk_booted",
        "its own disk was brought back, so it is booted",
    ),
    // Steps of a start and what desktops say.
    ("desktop.waiting_turn", "waiting for its turn"),
    ("desktop.starting_machine", "starting the machine"),
    ("desktop.starting", "starting"),
    ("desktop.loading_memory", "loading memory"),
    ("desktop.identity", "identity"),
    ("desktop.address", "address"),
    ("desktop.clock_address", "clock and address"),
    ("desktop.booting", "booting"),
    (
        "desktop.booting_helper",
        "booting: waiting for the guest's helper",
    ),
    ("desktop.booting_what", "booting: {what}"),
    ("desktop.saving", "saving"),
    ("desktop.capturing", "capturing"),
    ("desktop.being_suspended", "being suspended"),
    ("desktop.being_stopped", "being stopped"),
    ("desktop.ending_before", "ending the machine before it"),
    ("desktop.shut_down", "the guest was shut down"),
    (
        "desktop.shut_down_helper",
        "the guest shut down, asked through its helper",
    ),
    (
        "desktop.shut_down_button",
        "the guest shut down, asked by its power button",
    ),
    (
        "desktop.did_not_shut_down",
        "ended: the guest did not shut down within {seconds} s, neither through its helper nor by its power button",
    ),
    (
        "desktop.not_usable",
        "it did not become usable in time (last step: {step}); open its console while it starts to see why",
    ),
    (
        "desktop.not_usable_within",
        "it was not usable within {seconds} s: it was still at: {step}",
    ),
    (
        "desktop.gone_from_host",
        "its machine on {host} is gone; the host or its QEMU was ended",
    ),
    (
        "desktop.host_silent",
        "nothing is heard of {host}; it may still run there",
    ),
    ("desktop.disk_not_made", "its disk could not be made: {why}"),
    (
        "desktop.not_suspended",
        "it could not be suspended and goes on: {why}",
    ),
    (
        "desktop.not_saved",
        "it could not be saved and goes on: {why}",
    ),
    (
        "desktop.nothing_to_suspend",
        "it does not run, so there is nothing to suspend",
    ),
    (
        "desktop.ended_before_suspend",
        "it ended before it could be suspended: {why}",
    ),
    (
        "desktop.saved_still_there",
        "{why}. What was saved is still there: try again, boot its disk instead, or reset it",
    ),
    (
        "desktop.draft_kept",
        "{why}. The draft's disk is kept: start it again",
    ),
    ("desktop.tried", "{why} (tried {times} times)"),
    (
        "desktop.ended_while_agent_down",
        "its machine ended while the agent of host {host} was not running",
    ),
    // What a person is told about a desktop.
    (
        "notice.booted_again",
        "It ended unexpectedly ({why}) and was booted again from its disk.",
    ),
    (
        "notice.started_as_new",
        "It ended unexpectedly ({why}) and was started again as new.",
    ),
    ("notice.shut_down_inside", "It was shut down from inside."),
    ("notice.called_off", "The order was called off."),
    (
        "notice.disk_waits",
        "It stands still: the file server has nothing left to extend its disk with. Nothing is lost; it goes on by itself when there is room.",
    ),
    (
        "notice.disk_lost",
        "Its disk is lost, because its snapshot on the file server became full. Reset it, or restore a restore point.",
    ),
    (
        "notice.memory",
        "{host} ran out of memory, so it was suspended; start it to go on where you were.",
    ),
    // Why a desktop was booted cold.
    ("cold.asked", "a cold boot was asked for"),
    (
        "cold.own_disk_asked",
        "a cold boot of its own disk was asked for",
    ),
    (
        "cold.was_shut_down",
        "it was shut down, so its own disk is booted",
    ),
    (
        "cold.ended",
        "it ended unexpectedly, so its own disk is booted",
    ),
    ("cold.no_memory", "the release has no sealed memory"),
    (
        "cold.no_helper",
        "the guest boots, but Lyceum's helper does not answer in it, so identity could not be renewed in a fork: install the helper in the draft, or use the release for cold boots",
    ),
    // Drafts, imports, seals.
    ("draft.waiting", "waiting: {why}"),
    (
        "draft.clearing_again",
        "clearing up, and trying again: {why}",
    ),
    ("draft.percent", "{step} ({percent} %)"),
    ("draft.on_host", "{step}, on {host}"),
    ("draft.being_called_off", "being called off"),
    ("draft.uploading", "uploading {name}"),
    (
        "draft.upload_broke",
        "the upload of {name} broke off: upload it again",
    ),
    ("draft.upload_called_off", "the upload was called off"),
    ("draft.copying", "copying {name}"),
    ("draft.copied", "copied from {name}"),
    ("draft.making_empty", "making an empty disk of {size}"),
    ("draft.empty", "an empty disk of {size}"),
    (
        "draft.iso",
        "{name} is in the drive; install it to the empty disk of {size}",
    ),
    ("draft.imported", "imported from {name} ({format}, {size})"),
    (
        "draft.deleting_machine",
        "being deleted: its machine is being ended",
    ),
    ("draft.deleting", "being deleted"),
    ("draft.deleted", "the draft is deleted"),
    ("seal.being_sealed", "being sealed"),
    ("seal.shutting_down", "shutting down the draft's machine"),
    ("seal.copying", "copying the disk"),
    ("seal.saving", "saving memory"),
    ("seal.trying", "trying a fork"),
    ("seal.trying_step", "trying a fork: {step}"),
    ("seal.hashing", "hashing the release"),
    (
        "seal.closing",
        "release {version} is offered; closing the draft",
    ),
    ("seal.offered", "release {version} is offered"),
    ("seal.clearing", "clearing up after the seal"),
    ("seal.failed", "the seal failed: {why}"),
    ("seal.called_off", "the seal was called off"),
    ("seal.no_fork", "a fork of it does not come up: {why}"),
    (
        "seal.not_ready",
        "the guest was not ready after {seconds} s (last step: {step}): boot the draft and see in its console why",
    ),
    ("seal.no_host_now", "no host can seal it now: {why}"),
    ("seal.no_host_joined", "no host has joined yet"),
    // Operations.
    ("operation.called_off", "called off"),
    ("operation.replaced", "replaced by a newer order"),
    ("operation.as_new", "starting again as new"),
    ("operation.handing_out", "being handed out"),
    ("operation.deleted", "it was deleted"),
    (
        "operation.no_original",
        "the desktop to hand out does not run any more: start it and order again",
    ),
    (
        "operation.not_captured",
        "the desktop could not be captured: {why}",
    ),
    // Hosts.
    (
        "host.no_kvm",
        "KVM does not work on this host, so desktops run in software emulation, about ten times slower: see `lyceum doctor`",
    ),
    ("host.simulated", "desktops on this host are simulated"),
    ("host.not_measured", "its load has not been measured yet"),
    (
        "host.desktops_memory",
        "its desktops use {used} MiB of memory, the mark is {mark} MiB",
    ),
    (
        "host.available",
        "only {available} MiB of its memory are available, the mark is {mark} MiB",
    ),
    (
        "host.pressure",
        "its tasks wait for memory {share} % of the time, the mark is {mark} %",
    ),
    (
        "host.refuses",
        "host {host} has {available} MiB of memory left and starts nothing below {floor} MiB: start the desktop on another host, or end others first",
    ),
    (
        "storage.one_disk",
        "both tiers are on one disk: fine to try it, but what desktops write then slows down what all of them read",
    ),
    (
        "storage.almost_full",
        "the {tier} tier is almost full: delete releases or desktops that nobody needs",
    ),
    (
        "storage.paused",
        "{count} desktops stand still, because the slow tier has nothing left to extend their disks with: delete what is not needed, or add a disk; they then go on, and nothing is lost",
    ),
    (
        "storage.lost",
        "the disks of {count} desktops are lost, because their snapshots became full: reset those desktops, or restore restore points",
    ),
    (
        "storage.weaker",
        "the file server runs with {mode}: a power cut may lose what desktops have stored (docs/durability.md)",
    ),
    // Releases on a host's own disk.
    (
        "replica.damaged",
        "its copy of release {release} was damaged and removed: look at the health of the disk under {folder}",
    ),
    (
        "replica.no_folder",
        "the folder {folder} can't be made on this host's own disk: {why}; desktops use the file server's",
    ),
    (
        "replica.not_copied",
        "release {release} can't be copied to this host's own disk: {why}; desktops use the file server's",
    ),
    (
        "replica.not_completed",
        "release {release} can't be completed on this host's own disk: {why}; desktops use the file server's",
    ),
    (
        "replica.no_room",
        "release {release} takes {mib} MiB, and {folder} has no room for it (limit {limit} MiB, {free} MiB free on the disk, {stays} MiB of releases in use stay): raise mib in [host.replica], or give it another disk; desktops use the file server's",
    ),
    (
        "replica.different",
        "its file {file} is not what its manifest says",
    ),
    // Refusals.
    (
        "order.no_room",
        "{why}. Nothing was started: stop other desktops, or add a host",
    ),
    (
        "order.room_for",
        "{wanted} desktops were to start and there is room for {fit}: {why}",
    ),
    ("order.no_host", "no host has joined the classroom"),
    (
        "order.no_release",
        "the image of the course {course} has no release yet: seal a draft of it first",
    ),
    (
        "order.only_damaged",
        "every release of the image of the course {course} that could be used is damaged: restore its files and offer it again, or seal a new one",
    ),
    (
        "order.pinned_damaged",
        "the release that the course {course} pins is damaged: restore its files and offer it again, or choose another for the course",
    ),
    (
        "order.nobody",
        "nobody is on the roster of this course: put students on it first",
    ),
    (
        "order.nothing_fits",
        "no desktop of this course is in a state for that",
    ),
    (
        "order.not_running",
        "the desktop does not run, so there is nothing to suspend: start it first",
    ),
    (
        "desktop.start_first",
        "the desktop does not run: start it first",
    ),
    (
        "hand_out.not_running",
        "the desktop to hand out does not run: start it first",
    ),
    (
        "hand_out.nobody",
        "there is nobody to hand it out to: put students on the roster first",
    ),
    (
        "course.busy",
        "{count} desktops of the course {course} still run: stop the class first",
    ),
    (
        "draft.no_disk",
        "the draft has no disk yet: upload one first",
    ),
    (
        "draft.disk_being_made",
        "the draft's disk is still being made: wait until it is ready",
    ),
    (
        "draft.is_sealed",
        "the draft is being sealed: wait until it is a release, or call that off",
    ),
    ("draft.start_first", "the draft is not open: start it first"),
    (
        "image.in_use",
        "image {image} can't be deleted, it is used by {users}: give those another image or delete them first",
    ),
    (
        "release.in_use",
        "release {release} can't be deleted, it is used by {users}: let those use another release first (retiring it moves courses that follow the newest)",
    ),
    // Accounts.
    (
        "session.none",
        "nobody is signed in, or the session has ended: sign in",
    ),
    (
        "session.wrong",
        "the sign-in name or the password is wrong, or the account is disabled",
    ),
    (
        "session.too_many",
        "too many wrong tries from here: wait {seconds} s, then try again",
    ),
    (
        "session.link_used",
        "this link was used already, is too old, or was replaced by a newer one: ask for a new one",
    ),
    ("session.present_wrong", "the present password is wrong"),
    (
        "password.short",
        "the password is shorter than {characters} characters: choose a longer one",
    ),
    (
        "password.is_login",
        "the password is the sign-in name: choose another",
    ),
    ("right.admin", "only admins may do this"),
    ("right.teacher", "only teachers and admins may do this"),
    (
        "right.course_teacher",
        "only teachers of the course and admins may do this",
    ),
    ("not_found", "there is no such {what}, or it is not yours"),
    (
        "internal",
        "something broke in the controller; its log says what. Try again, and tell whoever runs the classroom if it stays",
    ),
    (
        "user.last_admin",
        "{login} is the last admin: make somebody else an admin first",
    ),
    // Rosters.
    (
        "roster.no_account",
        "{login} has no account: check the spelling, or let accounts be made",
    ),
    (
        "roster.twice",
        "{login} is in line {line} already: remove one of the two",
    ),
    (
        "roster.empty",
        "the file is empty: its first line must name the columns, for example login,name,role",
    ),
    (
        "roster.no_login",
        "the first line must name the columns, and one of them must be login; for example login,name,role",
    ),
    (
        "roster.no_role",
        "{word} is no role: write student or teacher",
    ),
    // Moves, and more of plans.
    (
        "move.open_draft",
        "the machine of an open draft can't be moved: seal or close the draft first",
    ),
    (
        "move.already",
        "it is being moved already: wait until that is over",
    ),
    (
        "move.not_running",
        "it does not run, so there is nothing to move: start it first",
    ),
    ("move.no_host", "it is on no host"),
    (
        "move.ordered_already",
        "a move of it was ordered already: wait until that is over, or call it off",
    ),
    ("move.there_now", "it is there now"),
    ("move.other_asked", "another host was asked for"),
    ("move.stays", "{why}. It goes on where it is"),
    ("move.no_room", "no host has room for it"),
    ("move.resumed", "the host takes desktops again"),
    ("move.being_emptied", "{host} is being emptied"),
    ("move.asked_by", "{who} asked for it"),
    ("move.reason", "{why}; {where}"),
    ("move.not_there", "it is not there any more"),
    ("move.other_order", "another order came in between"),
    (
        "move.not_as_delta",
        "it shares no memory with a release, so it can't be moved as a delta: move it live",
    ),
    ("move.no_overlay", "it has neither an overlay nor a release"),
    (
        "move.shares_none",
        "it shares no memory with a release, so all of it has to travel",
    ),
    (
        "move.shares_little",
        "{own} of its {all} MiB are its own, so little is left to share",
    ),
    ("move.own_pages", "{own} of its {all} MiB are its own"),
    (
        "place.fewest",
        "{host} has {n} desktops, the fewest of the hosts with enough memory ({free} MiB free, {nominal} of {limit} MiB nominal)",
    ),
    (
        "place.was_there",
        "it was on {host} before, where its files are cached",
    ),
    ("place.has_more", "has {n} desktops, {host} has {m}"),
    ("place.draining", "it is being drained"),
    ("place.coming_up", "it is coming up"),
    ("place.is_off", "it is switched off"),
    ("place.pressure", "its memory is under pressure"),
    ("plan.pinned", "it is pinned"),
    (
        "plan.light_but",
        "it is light and could make room, but {why}",
    ),
    (
        "plan.heavy_but",
        "it is heavy and its host has too few cores, but {why}",
    ),
    (
        "plan.too_little_gained",
        "its heavy desktops ask for {here} times its cores; another on {host} would make that {there} times there: too little to gain",
    ),
    (
        "plan.no_exchange",
        "{why}, and no other host has room to make the exchange in steps",
    ),
    ("plan.given_up", "it was given up"),
    (
        "plan.mixed_counts",
        "{host} has {n} desktops and {to} has {m}; {each} is even",
    ),
    ("plan.no_other_host", "there is no other host"),
    ("plan.and_more", "{why}; and {n} more"),
    ("plan.to_be_off", "it is to be switched off"),
    ("plan.no_release", "it does not hold the desktop's release"),
    (
        "plan.stale",
        "its last measurement is {age} s old, so nothing is decided about it",
    ),
    (
        "plan.future",
        "its measurement is {ahead} s in the future: the clocks disagree, so nothing is decided about it",
    ),
    (
        "plan.paper_none",
        "it has the most desktops, and {host}, which has the fewest, can take none of them",
    ),
    (
        "plan.paper_move",
        "{host} has the most desktops ({n}), {to} the fewest ({m})",
    ),
    (
        "plan.paper_even",
        "there is nothing to gain: counts are even",
    ),
    (
        "plan.paper_stays",
        "it is empty but stays on: {n} free seats are wanted",
    ),
    ("plan.paper_least", "at least {n} hosts stay on"),
    ("plan.paper_none_off", "no host can be switched off"),
    (
        "plan.paper_seats",
        "without it {left} seats would be free, and {n} are wanted",
    ),
    (
        "plan.paper_emptied",
        "{host} has the fewest desktops and is switched off; {to} has the next fewest",
    ),
    (
        "plan.paper_not_all",
        "it has the fewest desktops, but the others can't take them all",
    ),
    (
        "plan.none_waits",
        "there is nothing to do: no desktop waits",
    ),
    ("plan.no_host_can", "no host can take it: {why}"),
    ("plan.not_written", "its move was not written down"),
    ("plan.not_known", "its move is not known any more"),
    ("plan.there_already", "it is there already"),
    (
        "plan.not_shown",
        "only a plan that was shown and has something to do can be carried out: plan again",
    ),
    ("plan.not_running", "it is not being carried out"),
    (
        "power.no_way_up",
        "nothing is set up that could bring it up",
    ),
    // The timetable.
    (
        "timetable.goes_on",
        "its desktops go on for the lesson at {time}",
    ),
    (
        "timetable.recurs",
        "it recurs {how}; only weekly and daily events are taken over",
    ),
    (
        "timetable.rule_has",
        "its rule has {what}, which is not taken over",
    ),
    (
        "timetable.no_begin",
        "it does not say when it begins (DTSTART)",
    ),
    (
        "timetable.no_end",
        "it does not say when it ends (DTEND or DURATION)",
    ),
    (
        "timetable.lasts",
        "it lasts {minutes} minutes; a lesson lasts 1 to 1440",
    ),
    (
        "timetable.first_day",
        "it begins on a day that its rule does not name",
    ),
    (
        "timetable.whole_day",
        "it is a whole day that recurs: enter it as a holiday for each year",
    ),
    ("timetable.no_zone", "there is no time zone {zone}"),
    (
        "timetable.zone_like",
        "there is no time zone {zone}: write for example Asia/Taipei or Europe/Berlin",
    ),
    ("timetable.file", "the calendar file can't be read: {why}"),
    ("timetable.file_line", "line {line}: {why}"),
    (
        "timetable.file_problems",
        "{count} events can't be taken over, the first in line {line}: {why}. Nothing was changed: mend the file, or leave them out",
    ),
    (
        "timetable.not_a_calendar",
        "this is no calendar: it does not begin with BEGIN:VCALENDAR",
    ),
    (
        "timetable.begins_with",
        "a calendar begins with BEGIN:VCALENDAR",
    ),
    (
        "timetable.not_that_day",
        "the lesson does not take place on {date}, so there is nothing to change on that day",
    ),
    (
        "timetable.every_needs_first",
        "a lesson that does not come every week needs a first day, from which its weeks are counted",
    ),
    (
        "timetable.last_before_first",
        "the last day is before the first",
    ),
    (
        "timetable.floor_above_ceiling",
        "lead_floor_minutes must not be above lead_ceiling_minutes",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_gives_its_code_and_what_was_filled_in() {
        let known = wording("nothing is heard of kvm1; it may still run there").expect("known");
        assert_eq!(known.code, "desktop.host_silent");
        assert_eq!(known.params["host"], "kvm1");
        assert_eq!(wording("something nobody wrote down"), None);
        assert_eq!(wording(""), None);
        // The whole of it, not a part.
        assert_eq!(wording("called off by somebody"), None);
        // Nothing is filled in with nothing.
        assert_eq!(wording("copying "), None);
        // The form that says most itself.
        let seal = wording("copying the disk").expect("known");
        assert_eq!(seal.code, "seal.copying");
    }

    #[test]
    fn texts_within_texts_are_found() {
        let all = wordings([
            "waiting: no host can seal it now: no host has joined yet",
            "",
        ])
        .0;
        let codes: Vec<&str> = all.values().map(|w| w.code.as_str()).collect();
        assert_eq!(all.len(), 3, "{codes:?}");
        let outer = &all["waiting: no host can seal it now: no host has joined yet"];
        assert_eq!(all[&outer.params["why"]].code, "seal.no_host_now");
    }

    #[test]
    fn each_form_fits_itself_and_no_code_is_twice() {
        let mut codes: Vec<&str> = CATALOGUE.iter().map(|(code, _)| *code).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), CATALOGUE.len());
        for (code, form) in CATALOGUE {
            let filled = form.replace('{', "<").replace('}', ">");
            assert_eq!(
                wording(&filled).map(|w| w.code).as_deref(),
                Some(*code),
                "{form}"
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_known_or_not(text in ".{0,60}") {
            let _ = wordings([text.as_str()]);
        }
    }
}
