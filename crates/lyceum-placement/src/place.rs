//! Start: after the paper, a desktop that waits goes to the host with the fewest desktops among
//! those that can take it; one person's desktops are kept apart where that is possible.

use crate::plan::Draft;

pub(crate) fn run(draft: &mut Draft) {
    let waiting: Vec<usize> = (0..draft.world.desktops.len())
        .filter(|d| draft.world.desktops[*d].host.is_none())
        .collect();
    if waiting.is_empty() {
        draft.not_done("start", "there is nothing to do: no desktop waits");
    }
    for d in waiting {
        let world = &draft.world;
        let best = (0..world.hosts.len())
            .filter(|h| world.fits(d, *h, None).is_ok())
            .min_by_key(|h| {
                (
                    world.dislike(d, *h),
                    world.hosts[*h].count,
                    world.hosts[*h].used,
                    *h,
                )
            });
        match best {
            Some(h) => {
                let reason = format!(
                    "{} has {} desktops, the fewest of the hosts that can take it",
                    world.host_name(h),
                    world.hosts[h].count
                );
                draft.world.arrive(d, h);
                draft.starts.push((d, h, reason));
            }
            None => {
                let why = draft.no_place(d);
                draft.not_done(
                    draft.world.desktop_name(d),
                    format!("no host can take it: {why}"),
                );
            }
        }
    }
}
