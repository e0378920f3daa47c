//! The benches' pages: one file each, plots as SVG, nothing fetched from anywhere.

use super::Machine;
use super::class_start::{Half, Result as ClassStart};
use super::reset::Result as Reset;
use super::stats::Sorted;
use crate::format::{bytes, mib, moment};
use std::fmt::Write;

/// Size of a plot inside its margins, in the units of its viewBox.
const W: f64 = 640.0;
const H: f64 = 260.0;
const LEFT: f64 = 56.0;
const TOP: f64 = 16.0;

const STYLE: &str = "
:root{--bg:#fbfbfd;--card:#fff;--ink:#1c2330;--dim:#667085;--line:#e4e7ec;--a:#2f6fed;--b:#e8833a}
@media(prefers-color-scheme:dark){:root{--bg:#12151b;--card:#1a1f28;--ink:#e8ebf0;--dim:#98a2b3;--line:#2b323e;--a:#6b9cff;--b:#f3a35c}}
*{box-sizing:border-box}body{margin:0;background:var(--bg);color:var(--ink);font:16px/1.55 system-ui,sans-serif}
main{max-width:860px;margin:0 auto;padding:48px 24px}h1{font-size:28px;line-height:1.25;margin:0 0 4px}
h2{font-size:17px;margin:0 0 12px}.dim{color:var(--dim);font-size:14px}
.card{background:var(--card);border:1px solid var(--line);border-radius:14px;padding:20px 24px;margin-top:20px}
.big{display:flex;flex-wrap:wrap;gap:12px 40px}.big b{display:block;font-size:34px;line-height:1.2;font-variant-numeric:tabular-nums}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}th,td{text-align:right;padding:7px 0 7px 14px;border-top:1px solid var(--line)}
th:first-child,td:first-child{text-align:left;padding-left:0}tr:first-child th{border-top:0;color:var(--dim);font-weight:500;font-size:14px}
svg{width:100%;height:auto;display:block}svg text{fill:var(--dim);font:12px system-ui,sans-serif}
.grid{stroke:var(--line)}.a{stroke:var(--a);fill:none;stroke-width:2.5}.b{stroke:var(--b);fill:none;stroke-width:2.5}
.fa{fill:var(--a)}.fb{fill:var(--b)}.fn{fill:var(--line)}.key{display:inline-block;width:10px;height:10px;border-radius:3px;margin:0 6px 0 14px}
";

pub(super) fn escape(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '&' => "&amp;".into(),
            '<' => "&lt;".into(),
            '>' => "&gt;".into(),
            '"' => "&quot;".into(),
            c => c.to_string(),
        })
        .collect()
}

fn page(title: &str, machine: &Machine, body: &str) -> String {
    let m = machine;
    let line = format!(
        "{} · {} · {} hosts on {} CPUs · {} · QEMU {} · Lyceum {}",
        m.image,
        moment(m.at),
        m.hosts,
        m.cpus,
        m.accelerator,
        m.qemu,
        m.version
    );
    page_of(title, &line, body)
}

/// A page with a line below its title that says where and with what it was measured.
pub(super) fn page_of(title: &str, line: &str, body: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{0}</title><style>{STYLE}</style><main><h1>{0}</h1><p class=\"dim\">{1}</p>{body}</main></html>\n",
        escape(title),
        escape(line)
    )
}

/// A round number at or above `value`, to end an axis with: 1, 2, 2.5 or 5 times a power of ten.
fn round_up(value: f64) -> f64 {
    if value.is_nan() || value <= 0.0 {
        return 1.0;
    }
    let power = 10f64.powf(value.log10().floor());
    [1.0, 2.0, 2.5, 5.0, 10.0]
        .iter()
        .map(|step| step * power)
        .find(|end| *end >= value * (1.0 - 1e-9))
        .unwrap_or(10.0 * power)
}

fn number(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// An empty plot: grid, ticks and titles of the axes.
fn axes(x_end: f64, y_end: f64, x_title: &str, y_title: &str) -> String {
    let mut out = format!(
        "<svg viewBox=\"0 0 {} {}\" role=\"img\">",
        LEFT + W + 16.0,
        TOP + H + 46.0
    );
    for tick in 0..=5 {
        let share = f64::from(tick) / 5.0;
        let (x, y) = (LEFT + share * W, TOP + H - share * H);
        let _ = write!(
            out,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{y}\" y2=\"{y}\"/><text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\
             <text x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            LEFT + W,
            LEFT - 8.0,
            y + 4.0,
            number(share * y_end),
            TOP + H + 20.0,
            number(share * x_end)
        );
    }
    let _ = write!(
        out,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text><text x=\"14\" y=\"{TOP}\" transform=\"rotate(-90 14 {TOP})\" text-anchor=\"end\">{}</text>",
        LEFT + W,
        TOP + H + 40.0,
        escape(x_title),
        escape(y_title)
    );
    out
}

/// How the share of usable desktops grows, as a staircase.
fn stairs(half: &Half, class: &str, x_end: f64) -> String {
    let n = half.usable_s.len().max(1) as f64;
    let x = |s: f64| LEFT + (s / x_end).min(1.0) * W;
    let y = |count: f64| TOP + H - count / n * H;
    let mut path = format!("M{:.1} {:.1}", x(0.0), y(0.0));
    for (i, s) in half.usable_s.iter().enumerate() {
        let _ = write!(path, "H{:.1}V{:.1}", x(*s), y(i as f64 + 1.0));
    }
    let _ = write!(path, "H{:.1}", LEFT + W);
    format!("<path class=\"{class}\" d=\"{path}\"/>")
}

/// Horizontal bars with their values: name, value, class of the bar, value as it is shown.
pub(super) fn bars(rows: &[(String, f64, &str, String)]) -> String {
    let most = rows
        .iter()
        .map(|(_, value, _, _)| *value)
        .fold(f64::MIN_POSITIVE, f64::max);
    let height = rows.len() as f64 * 40.0;
    let mut out = format!("<svg viewBox=\"0 0 712 {height}\" role=\"img\">");
    for (n, (name, value, class, shown)) in rows.iter().enumerate() {
        let y = n as f64 * 40.0;
        let width = (value / most * 430.0).max(2.0);
        let _ = write!(
            out,
            "<text x=\"150\" y=\"{}\" text-anchor=\"end\">{}</text><rect class=\"{class}\" x=\"162\" y=\"{}\" width=\"{width:.1}\" height=\"22\" rx=\"4\"/><text x=\"{:.1}\" y=\"{}\">{}</text>",
            y + 24.0,
            escape(name),
            y + 9.0,
            172.0 + width,
            y + 24.0,
            escape(shown)
        );
    }
    out + "</svg>"
}

fn big(value: &str, what: &str) -> String {
    format!(
        "<div><b>{}</b><span class=\"dim\">{}</span></div>",
        escape(value),
        escape(what)
    )
}

/// The page of the class start.
pub fn class_start(r: &ClassStart) -> String {
    let mut body = String::from("<div class=\"card big\">");
    body.push_str(&big(
        &format!("{:.1} s", r.fork.last_s),
        &format!("until the last of {} forked desktops was usable", r.fork.n),
    ));
    if let Some(ratio) = r.ratio_last_per_desktop {
        body.push_str(&big(
            &format!("{ratio:.0}×"),
            "faster than cold linked clones, per desktop",
        ));
    }
    body.push_str(&big(
        &format!(
            "{:.1} %",
            100.0 * r.fork.pss_mib / r.fork.nominal_mib.max(1) as f64
        ),
        "of the nominal memory is really used",
    ));
    body.push_str("</div>");

    let halves: Vec<(&str, &str, &str, &Half)> = [
        ("fork", "a", "fa", Some(&r.fork)),
        ("cold boot", "b", "fb", r.cold.as_ref()),
    ]
    .into_iter()
    .filter_map(|(name, line, fill, half)| half.map(|half| (name, line, fill, half)))
    .collect();
    let x_end = round_up(
        halves
            .iter()
            .map(|(_, _, _, h)| h.last_s)
            .fold(0.0, f64::max),
    );
    body.push_str("<div class=\"card\"><h2>Usable desktops after the order");
    for (name, _, fill, half) in &halves {
        let _ = write!(
            body,
            "<span class=\"key\" style=\"background:var(--{})\"></span><span class=\"dim\">{name}, n = {}</span>",
            &fill[1..],
            half.n
        );
    }
    body.push_str("</h2>");
    body.push_str(&axes(
        x_end,
        100.0,
        "seconds after the order",
        "percent usable",
    ));
    for (_, line, _, half) in &halves {
        body.push_str(&stairs(half, line, x_end));
    }
    body.push_str("</svg></div>");

    body.push_str("<div class=\"card\"><h2>Time per desktop (last usable / n)</h2>");
    let rows: Vec<_> = halves
        .iter()
        .map(|(name, _, fill, h)| {
            let each = h.last_s / h.n.max(1) as f64;
            ((*name).to_owned(), each, *fill, format!("{each:.2} s"))
        })
        .collect();
    body.push_str(&bars(&rows));
    body.push_str("</div><div class=\"card\"><h2>Memory per desktop</h2>");
    let mut rows: Vec<_> = halves
        .iter()
        .map(|(name, _, fill, h)| {
            let each = h.pss_mib / h.n.max(1) as f64;
            ((*name).to_owned(), each, *fill, format!("{each:.0} MiB"))
        })
        .collect();
    let nominal = r.fork.nominal_mib as f64 / r.fork.n.max(1) as f64;
    rows.push(("nominal".into(), nominal, "fn", format!("{nominal:.0} MiB")));
    body.push_str(&bars(&rows));

    body.push_str("</div><div class=\"card\"><table><tr><th>start by<th>n<th>first<th>median<th>last<th>last, by agents<th>memory<th>nominal<th>read / n</tr>");
    for (name, _, _, h) in &halves {
        let _ = write!(
            body,
            "<tr><td>{name}<td>{}<td>{:.2} s<td>{:.2} s<td>{:.2} s<td>{:.2} s<td>{}<td>{}<td>{}</tr>",
            h.n,
            h.first_s,
            h.median_s,
            h.last_s,
            h.agents_last(),
            mib(h.pss_mib.round() as u64),
            mib(h.nominal_mib),
            bytes(h.fast_tier_bytes_per_desktop)
        );
    }
    body.push_str("</table><p class=\"dim\">Times run from the order until the desktop is usable: identity renewed, address obtained, picture served. Memory is the sum of proportional set sizes.</p></div>");
    page(
        "Start of a class: fork against cold boot",
        &r.machine,
        &body,
    )
}

/// The page of the resets.
pub fn reset(r: &Reset) -> String {
    let mut body = String::from("<div class=\"card big\">");
    body.push_str(&big(
        &format!("{:.2} s", r.median_s),
        "median until usable again",
    ));
    body.push_str(&big(
        &format!("{:.2} s", r.p99_s),
        "99 of 100 were not slower",
    ));
    body.push_str(&big(&format!("{:.2} s", r.max_s), "slowest"));
    let _ = write!(
        body,
        "</div><div class=\"card\"><h2>{} resets of one desktop while {} others ran</h2>",
        r.n, r.others
    );
    let y_end = round_up(r.max_s);
    body.push_str(&axes(r.n as f64, y_end, "reset", "seconds until usable"));
    for (i, s) in r.samples_s.iter().enumerate() {
        let _ = write!(
            body,
            "<circle class=\"fa\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\"/>",
            LEFT + (i as f64 + 0.5) / r.n.max(1) as f64 * W,
            TOP + H - s / y_end * H
        );
    }
    let y = TOP + H - r.median_s / y_end * H;
    let _ = write!(
        body,
        "<line class=\"b\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/></svg></div>",
        LEFT + W
    );

    let sorted = Sorted::new(r.samples_s.iter().copied());
    const BINS: usize = 20;
    let mut counts = [0usize; BINS];
    for s in sorted.all() {
        counts[((s / y_end * BINS as f64) as usize).min(BINS - 1)] += 1;
    }
    let most = round_up(counts.iter().copied().max().unwrap_or(1) as f64);
    body.push_str("<div class=\"card\"><h2>How often which time</h2>");
    body.push_str(&axes(y_end, most, "seconds until usable", "resets"));
    for (bin, count) in counts.iter().enumerate() {
        let height = *count as f64 / most * H;
        let _ = write!(
            body,
            "<rect class=\"fa\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\"/>",
            LEFT + bin as f64 * W / BINS as f64 + 1.0,
            TOP + H - height,
            W / BINS as f64 - 2.0
        );
    }
    body.push_str("</svg></div>");
    page("Reset of one desktop", &r.machine, &body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        Machine {
            at: 0,
            version: "0".into(),
            cpus: 2,
            hosts: 3,
            accelerator: "tcg".into(),
            qemu: "10.0.2".into(),
            image: "<Demo>@1".into(),
        }
    }

    #[test]
    fn axes_end_at_round_numbers() {
        for (value, end) in [
            (0.0, 1.0),
            (0.7, 1.0),
            (1.1, 2.0),
            (2.1, 2.5),
            (4.0, 5.0),
            (205.0, 250.0),
            (100.0, 100.0),
        ] {
            assert!(
                (round_up(value) - end).abs() < 1e-9,
                "{value} -> {}",
                round_up(value)
            );
        }
        assert_eq!(round_up(f64::NAN), 1.0);
    }

    #[test]
    fn a_page_stands_alone_and_escapes_names() {
        let r = Reset {
            n: 3,
            median_s: 0.5,
            p99_s: 0.9,
            max_s: 0.9,
            others: 20,
            samples_s: vec![0.4, 0.5, 0.9],
            machine: machine(),
        };
        let text = reset(&r);
        assert!(text.contains("&lt;Demo&gt;@1"));
        assert_eq!(text.matches("<circle").count(), 3);
        for outside in ["http:", "https:", "<script", "<link"] {
            assert!(!text.contains(outside), "{outside}");
        }
    }
}
