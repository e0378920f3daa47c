//! `lyceum image`: image → draft → seal → release.

use super::{SizeArgs, size_text};
use crate::client::{CallError, segment};
use crate::context::{Context, progress_bar};
use crate::exit::{self, Exit};
use crate::format::{bytes, dash, moment, word};
use crate::resolve::{self, short_release};
use crate::table::{Table, plain};
use clap::{Args, Subcommand};
use futures::TryStreamExt;
use lyceum_api::images::{
    Draft, DraftAccepted, DraftCreate, DraftSource, DraftState, Image, ImageCreate, ImagePatch,
    Release, SealOrder,
};
use lyceum_model::{OperationId, Phase};
use std::path::{Path, PathBuf};
use std::time::Duration;

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

/// What to import.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The file
    pub file: PathBuf,
    /// The image it becomes a draft of; made when there is none. Default: the file's name
    #[arg(long)]
    pub image: Option<String>,
    /// Size to open and seal it with
    #[command(flatten)]
    pub size: SizeArgs,
    /// For an ISO: GiB of the empty disk to install to
    #[arg(long, value_name = "GIB")]
    pub iso_disk: Option<u32>,
    /// Seal it right away
    #[arg(long)]
    pub seal: bool,
    /// What changed, for the release
    #[arg(long, default_value = "")]
    pub note: String,
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
        ImageCommand::Import(args) => import(ctx, args).await,
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

fn draft_text(draft: &Draft) -> String {
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
            size,
        } => {
            let image = resolve::image(&ctx.client, &image).await?;
            let source = match (from, empty) {
                (_, Some(disk_gib)) => DraftSource::Empty { disk_gib },
                (Some(text), None) => DraftSource::Release {
                    release: resolve::release(&ctx.client, &text).await?.id,
                },
                (None, None) => match image.releases.first() {
                    Some(newest) => DraftSource::Release {
                        release: newest.id.clone(),
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

/// Uploads a file as the draft of an image (made when there is none) and waits until it was
/// checked and converted. `told` gets progress in words.
pub async fn upload(
    ctx: &Context,
    file: &Path,
    image_name: &str,
    description: &str,
    size: Option<lyceum_model::MachineSize>,
    iso_disk: Option<u32>,
    told: &dyn Fn(&str),
) -> anyhow::Result<Draft> {
    let client = &ctx.client;
    let unreadable =
        |e: std::io::Error| Exit::usage(format!("{} can't be read: {e}", file.display()));
    // Before anything is made: a wrong file name must leave nothing behind.
    let opened = tokio::fs::File::open(file).await.map_err(unreadable)?;
    let meta = opened.metadata().await.map_err(unreadable)?;
    if !meta.is_file() {
        return Err(Exit::usage(format!("{} is not a file", file.display())));
    }
    let length = meta.len();

    let images: Vec<Image> = client.get("images").await?;
    let image = match images.into_iter().find(|i| i.name == image_name) {
        Some(image) => image,
        None => {
            let body = ImageCreate {
                name: image_name.to_owned(),
                description: description.to_owned(),
            };
            client.post("images", &body).await?
        }
    };
    let draft = match image.draft {
        // An upload that was cut short is begun again.
        Some(draft) if draft.state == DraftState::Empty => draft,
        Some(draft) => {
            return Err(Exit::coded(
                exit::REFUSED,
                format!(
                    "{} has an open draft already ({}); seal it or throw it away first: lyceum image draft discard {:?}",
                    image.name,
                    draft_text(&draft),
                    image.name
                ),
            ));
        }
        None => {
            let body = DraftCreate {
                source: DraftSource::Upload {},
                size,
            };
            let accepted: DraftAccepted = client
                .post(&format!("images/{}/draft", image.id), &body)
                .await?;
            accepted.draft
        }
    };

    let file_name = file.file_name().and_then(|n| n.to_str()).unwrap_or("disk");
    let mut path = format!("drafts/{}/upload?name={}", draft.id, segment(file_name));
    if let Some(gib) = iso_disk {
        path.push_str(&format!("&iso_disk_gib={gib}"));
    }
    told(&format!("uploading {} ({})", file.display(), bytes(length)));
    let bar = progress_bar(ctx.json);
    bar.set_length(length);
    let counted = {
        let bar = bar.clone();
        tokio_util::io::ReaderStream::with_capacity(opened, 256 * 1024)
            .inspect_ok(move |chunk| bar.inc(chunk.len() as u64))
    };
    let sent: Result<DraftAccepted, CallError> = client
        .upload(&path, length, reqwest::Body::wrap_stream(counted))
        .await;
    bar.finish_and_clear();
    let accepted = sent?;

    told("checking and converting it");
    if let Some(operation) = &accepted.operation {
        let operation = ctx.wait(operation).await?;
        if operation.state != lyceum_api::operations::OperationState::Done {
            return Err(Exit::coded(
                exit::FAILED,
                crate::context::report(&operation),
            ));
        }
    }
    ready(ctx, &accepted.draft).await
}

/// Waits until the draft has a disk.
async fn ready(ctx: &Context, draft: &Draft) -> anyhow::Result<Draft> {
    loop {
        let draft: Draft = ctx.client.get(&format!("drafts/{}", draft.id)).await?;
        match draft.state {
            DraftState::Importing => tokio::time::sleep(Duration::from_millis(300)).await,
            DraftState::Empty => {
                return Err(Exit::coded(
                    exit::FAILED,
                    format!("the file was not taken: {}", plain(&draft.detail)),
                ));
            }
            DraftState::Ready | DraftState::Sealing => return Ok(draft),
        }
    }
}

/// Orders a seal.
pub async fn seal(ctx: &Context, draft: &Draft, note: &str) -> anyhow::Result<OperationId> {
    let order = SealOrder {
        note: note.to_owned(),
        size: None,
    };
    let accepted: DraftAccepted = ctx
        .client
        .post(&format!("drafts/{}/seal", draft.id), &order)
        .await?;
    accepted.operation.ok_or_else(|| Exit::coded(exit::UNREACHABLE, "the controller took the seal without an operation to watch; both sides must have the same version"))
}

async fn import(ctx: &Context, args: ImportArgs) -> anyhow::Result<()> {
    let name = match args.image {
        Some(name) => name,
        None => args
            .file
            .file_stem()
            .and_then(|n| n.to_str())
            .map(str::to_owned)
            .ok_or_else(|| {
                Exit::usage("the file's name is no name for an image; give --image NAME")
            })?,
    };
    let told = |text: &str| {
        if !ctx.json {
            eprintln!("{text}");
        }
    };
    let size = args.size.over(None)?;
    let draft = upload(ctx, &args.file, &name, "", size, args.iso_disk, &told).await?;
    if args.seal {
        let operation = seal(ctx, &draft, &args.note).await?;
        return ctx.follow(&operation).await.map(drop);
    }
    ctx.done(
        &draft,
        &format!("{name} has a draft now; make a release of it: lyceum image seal {name:?}"),
    )
}
