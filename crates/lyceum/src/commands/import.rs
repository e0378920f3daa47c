//! `lyceum image import`: a file becomes a draft's disk.

use super::SizeArgs;
use super::image::draft_text;
use crate::client::{CallError, segment};
use crate::context::{Context, progress_bar};
use crate::exit::{self, Exit};
use crate::format::bytes;
use crate::table::plain;
use clap::Args;
use futures::TryStreamExt;
use lyceum_api::images::{
    Draft, DraftAccepted, DraftCreate, DraftSource, DraftState, Image, ImageCreate, SealOrder,
};
use lyceum_model::OperationId;
use std::path::{Path, PathBuf};
use std::time::Duration;

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
    let found = images.into_iter().find(|i| i.name == image_name);
    let made_here = found.is_none();
    let image = match found {
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

    let filled = fill(ctx, &draft, file, opened, length, iso_disk, told).await;
    if filled.is_err() {
        // Nothing half-made stays; what went wrong is told, not whether this worked.
        let _ = client
            .delete::<serde_json::Value>(&format!("drafts/{}", draft.id))
            .await;
        if made_here {
            let _ = client
                .delete::<serde_json::Value>(&format!("images/{}", image.id))
                .await;
        }
    }
    filled
}

/// Sends the file and waits until it has become the draft's disk.
async fn fill(
    ctx: &Context,
    draft: &Draft,
    file: &Path,
    opened: tokio::fs::File,
    length: u64,
    iso_disk: Option<u32>,
    told: &dyn Fn(&str),
) -> anyhow::Result<Draft> {
    let client = &ctx.client;
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

/// Runs the command.
pub async fn run(ctx: &Context, args: ImportArgs) -> anyhow::Result<()> {
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
