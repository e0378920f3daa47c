//! The command line.

use crate::bench;
use crate::commands::{
    allocation, audit, course, desktop, host, image, login, network, operation, plan,
    restore_point, samples, session, settings, sim, storage, timetable, user,
};
use crate::doctor::DoctorArgs;
use crate::exit;
use crate::parts::{AgentArgs, PartArgs};
use crate::tune;
use crate::up::UpArgs;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// A virtual computer classroom: golden images in, a whole class of desktops out.
///
/// On the controller's own machine the commands go through its local socket and need no
/// sign-in. For a classroom on another machine give --url and sign in with `lyceum login`.
#[derive(Debug, Parser)]
#[command(name = "lyceum", version, after_help = exit::HELP, max_term_width = 100, disable_help_subcommand = true)]
pub struct Cli {
    /// What all commands take
    #[command(flatten)]
    pub global: Global,
    /// The command
    #[command(subcommand)]
    pub command: Command,
}

/// What all commands take.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Answer with JSON: the API's own objects
    // A text instead of a flag because `bench` has `--json FILE`, and clap gives both one type.
    #[arg(long, global = true, num_args = 0..=1, require_equals = true, default_missing_value = "-",
          value_parser = ["-"], hide_possible_values = true)]
    pub json: Option<String>,
    /// Order, but don't wait until it is done
    #[arg(long, global = true)]
    pub no_wait: bool,
    /// State directory of the classroom on this machine
    #[arg(long, global = true, env = "LYCEUM_STATE", value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Address of a classroom on another machine
    #[arg(long, global = true, env = "LYCEUM_URL", value_name = "URL")]
    pub url: Option<String>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the whole classroom on this machine, in the foreground
    Up(UpArgs),
    /// Check what a classroom needs of this machine, with a cure for each finding
    Doctor(DoctorArgs),
    /// The classroom at a glance
    Status,
    /// Golden images, drafts and releases
    #[command(subcommand)]
    Image(image::ImageCommand),
    /// Courses, rosters, and orders about a whole class
    #[command(subcommand)]
    Course(course::CourseCommand),
    /// Single desktops
    #[command(subcommand)]
    Desktop(desktop::DesktopCommand),
    /// Desktops and classes as they were: take, restore, undo, schedule
    #[command(subcommand)]
    RestorePoint(restore_point::RestorePointCommand),
    /// People
    #[command(subcommand)]
    User(user::UserCommand),
    /// Machines that run desktops; without a command: run such a machine's agent
    Host(HostArgs),
    /// The file server's disks; without a command: run the storage agent
    Storage(StorageArgs),
    /// Run a controller
    Controller(PartArgs),
    /// Run the gateway of courses' networks, as root on the controller's machine
    Gateway(crate::gateway::GatewayArgs),
    /// Courses' networks: what desktops reach, examinations, the gateway
    #[command(subcommand)]
    Network(network::NetworkCommand),
    /// Measure what the classroom that runs reaches
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    /// Settings of this machine's network and disks: raised where it helps, measured, undone exactly
    #[command(subcommand)]
    Tune(tune::TuneCommand),
    /// What the planner would do: with a cluster in a file, without a classroom; else with the classroom that
    /// runs, and --act has it done
    Plan(plan::PlanArgs),
    /// How the classroom allocates its hosts, and what it planned
    #[command(subcommand)]
    Allocation(allocation::AllocationCommand),
    /// What was measured
    #[command(subcommand)]
    Samples(samples::SamplesCommand),
    /// Rehearse weeks of a whole school on simulated hosts, and compare policies
    Sim(sim::SimArgs),
    /// When courses meet, and what is done before and after
    #[command(subcommand)]
    Timetable(timetable::TimetableCommand),
    /// Work that takes time
    #[command(subcommand)]
    Operation(operation::OperationCommand),
    /// Who did what to whom
    Audit(audit::AuditArgs),
    /// Settings of the whole classroom
    #[command(subcommand)]
    Settings(settings::SettingsCommand),
    /// Where one is signed in
    #[command(subcommand)]
    Session(session::SessionCommand),
    /// Sign in to a classroom on another machine
    Login(login::LoginArgs),
    /// End that session
    Logout,
    /// Change one's password there
    Password,
    /// Print the document of the API, openapi.json
    #[command(hide = true)]
    Openapi,
    /// Print a script that completes commands in a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// `lyceum storage init`, or `lyceum storage --config FILE`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct StorageArgs {
    /// What to do with the file server
    #[command(subcommand)]
    pub command: Option<storage::StorageCommand>,
    /// How to run the agent
    #[command(flatten)]
    pub agent: AgentArgs,
}

/// `lyceum host list` and the like, or `lyceum host --config FILE`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct HostArgs {
    /// What to do with hosts
    #[command(subcommand)]
    pub command: Option<host::HostCommand>,
    /// How to run the agent
    #[command(flatten)]
    pub agent: AgentArgs,
}

impl Global {
    /// Whether answers are JSON.
    pub fn json(&self) -> bool {
        self.json.as_deref() == Some("-")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_a_flag_everywhere_and_a_file_in_benches() {
        let json = |line: &str| {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            (cli.global.json(), cli.global.json)
        };
        assert_eq!(json("lyceum --json status"), (true, Some("-".into())));
        assert_eq!(json("lyceum image list --json"), (true, Some("-".into())));
        assert_eq!(json("lyceum status"), (false, None));
        for line in [
            "lyceum bench reset --json out.json",
            "lyceum bench class-start --desktops 2 --json out.json",
        ] {
            assert_eq!(json(line), (false, Some("out.json".into())));
        }
    }

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
