//! `lyceum image`: image → draft → seal → release.

use super::import::{self, ImportArgs};
use super::{SizeArgs, size_text};
use crate::context::Context;
use crate::exit::{self, Exit};
use crate::format::{bytes, dash, moment, word};
use crate::resolve::{self, short_release};
use crate::table::{Table, plain};
use clap::Subcommand;
use lyceum_api::images::{
    Draft, DraftAccepted, DraftCreate, DraftSource, DraftState, Image, ImageCreate, ImagePatch,
    Release, SealOrder,
};
use lyceum_model::Phase;

/// Golden images. A release is named Image@VERSION or by the beginning of its hash.
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Every image with its newest release and its draft
    List,
    /// Make an image without content; open a draft of it next
    Create {
        /// Name
        name: String,
        /// What is in it
        #[arg(long, default_value = "")]
        description: String,
    },
    /// Change name or description
    Set {
        /// Which
        image: String,
        /// Name
        #[arg(long)]
        name: Option<String>,
        /// What is in it
        #[arg(long)]
        description: Option<String>,
    },
    /// Upload a qcow2, raw, vmdk, vhdx, vdi or ISO file as a draft, and seal it with --seal
    Import(ImportArgs),
    /// A golden image that is open for change
    #[command(subcommand)]
    Draft(DraftCommand),
    /// Make a release of the draft
    Seal {
        /// Image
        image: String,
        /// What changed
        #[arg(long, default_value = "")]
        note: String,
        /// Another size than the draft's
        #[command(flatten)]
        size: SizeArgs,
    },
    /// Releases of an image, newest first
    Releases {
        /// Image
        image: String,
    },
    /// No new course starts from this release; courses that pin it go on
    Retire {
        /// Release
        release: String,
    },
    /// Offer a retired release again
    Offer {
        /// Release
        release: String,
    },
    /// Delete an image with its releases, or with --release one release; refused while in use
    Delete {
        /// Image
        #[arg(required_unless_present = "release")]
        image: Option<String>,
        /// Only this release
        #[arg(long, conflicts_with = "image")]
        release: Option<String>,
    },
}

/// Drafts. A draft is named by its image.
#[derive(Debug, Subcommand)]
pub enum DraftCommand {
    /// Open one: a copy of the newest release, of another one, or an empty disk
    Open {
        /// Image
        image: String,
        /// Copy this release (Image@2)
        #[arg(long, conflicts_with = "empty")]
        from: Option<String>,
        /// An empty disk of so many GiB
        #[arg(long, value_name = "GIB")]
        empty: Option<u32>,
        /// Make the copy's disk so many GiB large; the guest's partitions are enlarged in the draft
        #[arg(long, value_name = "GIB", conflicts_with = "empty")]
        grow: Option<u32>,
        /// Size to open and seal it with
        #[command(flatten)]
        size: SizeArgs,
    },
    /// How it stands
    Show {
        /// Image
        image: String,
    },
    /// Boot it, to change it in its console
    Start {
        /// Image
        image: String,
    },
    /// Shut it down
    Stop {
        /// Image
        image: String,
    },
    /// The page's address that opens its screen
    Console {
        /// Image
        image: String,
    },
    /// Throw it away
    Discard {
        /// Image
        image: String,
    },
}

/// Runs the command.
pub async fn run(ctx: &Context, command: ImageCommand) -> anyhow::Result<()> {
    match command {
        ImageCommand::List => {
            let images: Vec<Image> = ctx.client.get("images").await?;
            ctx.show_table(
                &images,
                "no images; import one: lyceum image import FILE --seal",
                |images| {
                    let mut table = Table::new(&[
                        "IMAGE",
                        ">RELEASES",
                        ">NEWEST",
                        "SIZE",
                        ">ON DISK",
                        "DRAFT",
                        "WHAT IS IN IT",
                    ]);
                    for i in images {
                        let newest = i.releases.first();
                        table.row([
                            i.name.clone(),
                            i.releases.len().to_string(),
                            dash(newest.map(|r| r.version)),
                            newest
                                .and_then(|r| r.size)
                                .map_or_else(|| "-".into(), size_text),
                            bytes(i.releases.iter().map(|r| r.bytes_on_disk).sum()),
                            i.draft.as_ref().map_or_else(|| "-".into(), draft_text),
                            i.description.clone(),
                        ]);
                    }
                    table
                },
            )
        }
        ImageCommand::Create { name, description } => {
            let image: Image = ctx
                .client
                .post("images", &ImageCreate { name, description })
                .await?;
            ctx.done(&image, &format!("image {} is made", image.name))
        }
        ImageCommand::Set {
            image,
            name,
            description,
        } => {
            if name.is_none() && description.is_none() {
                return Err(Exit::usage(
                    "nothing to change; give --name or --description",
                ));
            }
            let image = resolve::image(&ctx.client, &image).await?;
            let image: Image = ctx
                .client
                .patch(
                    &format!("images/{}", image.id),
                    &ImagePatch { name, description },
                )
                .await?;
            ctx.done(
                &image,
                &format!("image {}: {}", image.name, image.description),
            )
        }
        ImageCommand::Import(args) => import::run(ctx, args).await,
        ImageCommand::Draft(command) => draft(ctx, command).await,
        ImageCommand::Seal { image, note, size } => {
            let draft = draft_of(ctx, &image).await?;
            let size = size.over(Some(draft.size))?;
            let accepted: DraftAccepted = ctx
                .client
                .post(
                    &format!("drafts/{}/seal", draft.id),
                    &SealOrder { note, size },
                )
                .await?;
            follow(ctx, accepted).await
        }
        ImageCommand::Releases { image } => {
            let image = resolve::image(&ctx.client, &image).await?;
            ctx.show_table(&image.releases, "nothing was sealed yet", |releases| {
                let mut table = Table::new(&[
                    ">VERSION",
                    "HASH",
                    "STATE",
                    "SIZE",
                    ">ON DISK",
                    "STARTS BY",
                    "SEALED",
                    "BY",
                    "NOTE",
                    "USED BY",
                ]);
                for r in releases {
                    table.row([
                        r.version.to_string(),
                        short_release(r).to_owned(),
                        word(&r.state),
                        r.size.map_or_else(|| "-".into(), size_text),
                        bytes(r.bytes_on_disk),
                        r.cold_reason
                            .as_ref()
                            .map_or_else(|| "fork".into(), |why| format!("cold boot: {why}")),
                        moment(r.sealed_at),
                        r.sealed_by.clone(),
                        r.note.clone(),
                        r.used_by.join(", "),
                    ]);
                }
                table
            })
        }
        ImageCommand::Retire { release } => turn(ctx, &release, "retire").await,
        ImageCommand::Offer { release } => turn(ctx, &release, "offer").await,
        ImageCommand::Delete { image, release } => {
            let (path, name) = match (image, release) {
                (_, Some(text)) => (
                    format!(
                        "releases/{}",
                        resolve::release(&ctx.client, &text).await?.id
                    ),
                    text,
                ),
                (Some(text), None) => (
                    format!("images/{}", resolve::image(&ctx.client, &text).await?.id),
                    text,
                ),
                (None, None) => return Err(Exit::usage("name an image or a release")),
            };
            let answer: serde_json::Value = ctx.client.delete(&path).await?;
            super::course::follow_if_any(ctx, answer).await?;
            ctx.done(
                &serde_json::json!({ "deleted": name }),
                &format!("{name} is deleted"),
            )
        }
    }
}

async fn turn(ctx: &Context, text: &str, how: &str) -> anyhow::Result<()> {
    let release = resolve::release(&ctx.client, text).await?;
    let _: serde_json::Value = ctx
        .client
        .post(
            &format!("releases/{}/{how}", release.id),
            &serde_json::json!({}),
        )
        .await?;
    let release: Release = ctx.client.get(&format!("releases/{}", release.id)).await?;
    ctx.done(
        &release,
        &format!("release {} is {}", release.version, word(&release.state)),
    )
}

pub(super) fn draft_text(draft: &Draft) -> String {
    match (draft.state, draft.percent) {
        (DraftState::Ready, _) if draft.phase != Phase::Stopped => word(&draft.phase),
        (DraftState::Importing, Some(percent)) => format!("importing {percent:.0} %"),
        (state, _) => word(&state),
    }
}

async fn draft_of(ctx: &Context, image: &str) -> anyhow::Result<Draft> {
    let image = resolve::image(&ctx.client, image).await?;
    image.draft.ok_or_else(|| {
        Exit::coded(
            exit::REFUSED,
            format!(
                "{0} has no open draft; open one: lyceum image draft open {0:?}",
                image.name
            ),
        )
    })
}

async fn follow(ctx: &Context, accepted: DraftAccepted) -> anyhow::Result<()> {
    match &accepted.operation {
        Some(operation) => ctx.follow(operation).await.map(drop),
        None => ctx.show(&accepted.draft, draft_details),
    }
}

async fn draft(ctx: &Context, command: DraftCommand) -> anyhow::Result<()> {
    match command {
        DraftCommand::Open {
            image,
            from,
            empty,
            grow,
            size,
        } => {
            let image = resolve::image(&ctx.client, &image).await?;
            let source = match (from, empty) {
                (_, Some(disk_gib)) => DraftSource::Empty { disk_gib },
                (Some(text), None) => DraftSource::Release {
                    release: resolve::release(&ctx.client, &text).await?.id,
                    disk_gib: grow,
                },
                (None, None) => match image.releases.first() {
                    Some(newest) => DraftSource::Release {
                        release: newest.id.clone(),
                        disk_gib: grow,
                    },
                    None => {
                        return Err(Exit::usage(format!(
                            "{} has no release to copy; give --empty GIB, or import a file",
                            image.name
                        )));
                    }
                },
            };
            let sealed = image.releases.first().and_then(|r| r.size);
            let accepted: DraftAccepted = ctx
                .client
                .post(
                    &format!("images/{}/draft", image.id),
                    &DraftCreate {
                        source,
                        size: size.over(sealed)?,
                    },
                )
                .await?;
            follow(ctx, accepted).await
        }
        DraftCommand::Show { image } => {
            let draft = draft_of(ctx, &image).await?;
            ctx.show(&draft, draft_details)
        }
        DraftCommand::Start { image } => {
            let draft = draft_of(ctx, &image).await?;
            let accepted: DraftAccepted = ctx
                .client
                .post(
                    &format!("drafts/{}/start", draft.id),
                    &serde_json::json!({}),
                )
                .await?;
            follow(ctx, accepted).await
        }
        DraftCommand::Stop { image } => {
            let draft = draft_of(ctx, &image).await?;
            let accepted: DraftAccepted = ctx
                .client
                .post(&format!("drafts/{}/stop", draft.id), &serde_json::json!({}))
                .await?;
            follow(ctx, accepted).await
        }
        DraftCommand::Console { image } => {
            let draft = draft_of(ctx, &image).await?;
            let link = format!(
                "{}/#/console/draft/{}",
                super::status::page_address(ctx).await?,
                draft.id
            );
            ctx.show(&serde_json::json!({ "url": link }), |_| format!("{link}\n"))
        }
        DraftCommand::Discard { image } => {
            let draft = draft_of(ctx, &image).await?;
            let answer: serde_json::Value =
                ctx.client.delete(&format!("drafts/{}", draft.id)).await?;
            super::course::follow_if_any(ctx, answer).await?;
            ctx.done(&draft, "the draft is thrown away")
        }
    }
}

fn draft_details(d: &Draft) -> String {
    let lines = [
        ("id", d.id.to_string()),
        ("state", draft_text(d)),
        ("detail", d.detail.clone()),
        ("size", size_text(d.size)),
        ("host", dash(d.host.as_ref())),
        ("from", dash(d.from_release.as_ref())),
        ("ISO", if d.iso { "in its drive" } else { "none" }.into()),
        ("opened by", d.owner.clone()),
        ("since", moment(d.created)),
    ];
    lines
        .iter()
        .map(|(k, v)| format!("{k:<10} {}\n", plain(v)))
        .collect()
}
