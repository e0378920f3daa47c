//! Golden images. Their releases and drafts are in files of their own.

use crate::{Result, Store, Tx, conflict};
use lyceum_model::{ImageId, UnixMillis};
use sqlx::Row;

/// A row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Key.
    pub id: ImageId,
    /// Name, unique.
    pub name: String,
    /// What is in it.
    pub description: String,
    /// When it was made.
    pub created: UnixMillis,
}

fn image(row: &sqlx::any::AnyRow) -> Result<Image> {
    Ok(Image {
        id: crate::parse("images.id", row.try_get("id")?)?,
        name: row.try_get("name")?,
        description: row.try_get("description")?,
        created: row.try_get("created")?,
    })
}

fn taken(name: &str) -> String {
    format!("there is an image named {name:?} already: choose another name")
}

/// All, by name.
pub async fn all(store: &Store) -> Result<Vec<Image>> {
    sqlx::query("SELECT * FROM images ORDER BY name, id")
        .fetch_all(store.pool())
        .await?
        .iter()
        .map(image)
        .collect()
}

/// One.
pub async fn get(store: &Store, id: &ImageId) -> Result<Option<Image>> {
    sqlx::query("SELECT * FROM images WHERE id = $1")
        .bind(id.as_str())
        .fetch_optional(store.pool())
        .await?
        .map(|row| image(&row))
        .transpose()
}

/// One, inside a transaction.
pub async fn get_tx(tx: &mut Tx, id: &ImageId) -> Result<Option<Image>> {
    sqlx::query("SELECT * FROM images WHERE id = $1")
        .bind(id.as_str())
        .fetch_optional(tx.connection())
        .await?
        .map(|row| image(&row))
        .transpose()
}

/// A new one. [`Conflict`](crate::StoreError::Conflict) when the name is taken.
pub async fn insert(tx: &mut Tx, new: &Image) -> Result<()> {
    sqlx::query("INSERT INTO images (id, name, description, created) VALUES ($1, $2, $3, $4)")
        .bind(new.id.as_str())
        .bind(&new.name)
        .bind(&new.description)
        .bind(new.created)
        .execute(tx.connection())
        .await
        .map_err(|e| conflict(e, taken(&new.name)))?;
    tx.touch("image", &new.id);
    Ok(())
}

/// Another name or description. Answers whether it is there; `Conflict` when the name is taken.
pub async fn update(tx: &mut Tx, id: &ImageId, name: &str, description: &str) -> Result<bool> {
    let done = sqlx::query("UPDATE images SET name = $2, description = $3 WHERE id = $1")
        .bind(id.as_str())
        .bind(name)
        .bind(description)
        .execute(tx.connection())
        .await
        .map_err(|e| conflict(e, taken(name)))?;
    tx.touch("image", id);
    Ok(done.rows_affected() > 0)
}

/// Gone. Its releases and draft must be gone already: the database refuses otherwise.
pub async fn delete(tx: &mut Tx, id: &ImageId) -> Result<()> {
    sqlx::query("DELETE FROM images WHERE id = $1")
        .bind(id.as_str())
        .execute(tx.connection())
        .await?;
    tx.touch("image", id);
    Ok(())
}

/// Names of the courses that have it.
pub async fn courses_tx(tx: &mut Tx, id: &ImageId) -> Result<Vec<String>> {
    sqlx::query("SELECT name FROM courses WHERE image_id = $1 ORDER BY name, id")
        .bind(id.as_str())
        .fetch_all(tx.connection())
        .await?
        .iter()
        .map(|row| Ok(row.try_get("name")?))
        .collect()
}
