//! A report as one HTML file with plots; nothing in it is fetched from anywhere.

use crate::report::{Outcome, Report};
use std::fmt::Write;

const W: f64 = 820.0;
const H: f64 = 220.0;
const LEFT: f64 = 44.0;
const COLORS: [&str; 3] = ["var(--a)", "var(--b)", "var(--c)"];

const STYLE: &str = "
:root{--bg:#fbfbfd;--card:#fff;--ink:#1c2330;--dim:#667085;--line:#e4e7ec;--a:#98a2b3;--b:#e8833a;--c:#2f6fed}
@media(prefers-color-scheme:dark){:root{--bg:#12151b;--card:#1a1f28;--ink:#e8ebf0;--dim:#98a2b3;--line:#2b323e;--a:#667085;--b:#f3a35c;--c:#6b9cff}}
*{box-sizing:border-box}body{margin:0;background:var(--bg);color:var(--ink);font:16px/1.55 system-ui,sans-serif}
main{max-width:980px;margin:0 auto;padding:48px 24px}h1{font-size:28px;line-height:1.25;margin:0 0 4px}h2{font-size:17px;margin:0 0 12px}
.dim{color:var(--dim);font-size:14px}.card{background:var(--card);border:1px solid var(--line);border-radius:14px;padding:20px 24px;margin-top:20px;overflow-x:auto}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}th,td{text-align:right;padding:7px 0 7px 14px;border-top:1px solid var(--line)}
th:first-child,td:first-child{text-align:left;padding-left:0}tr:first-child th{border-top:0;color:var(--dim);font-weight:500;font-size:14px}
svg{width:100%;height:auto;display:block}svg text{fill:var(--dim);font:12px system-ui,sans-serif}.grid{stroke:var(--line)}
.key{display:inline-block;width:10px;height:10px;border-radius:3px;margin:0 6px 0 14px}";

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// The page.
pub fn page(report: &Report) -> String {
    let title = escape(&report.name);
    let mut body = String::new();
    let _ = write!(
        body,
        "<h1>{title}</h1><p class=\"dim\">{} weeks, {} hosts, {} students, {} sessions</p>",
        report.weeks, report.hosts, report.students, report.sessions
    );
    body.push_str(&card("What it took", &table(report)));
    body.push_str(&card(
        "Energy",
        &bars(
            report,
            |o| o.kwh,
            |o| {
                format!(
                    "{:.0} kWh, {:.1} % less than always on",
                    o.kwh, o.saved_percent
                )
            },
        ),
    ));
    body.push_str(&card(
        &format!("Hosts on {}", keys(report)),
        &lines(report, |o| {
            o.points
                .iter()
                .map(|p| (p.minute, f64::from(p.hosts_on)))
                .collect()
        }),
    ));
    body.push_str(&card(
        &format!("Free seats {}", keys(report)),
        &lines(report, |o| {
            o.points
                .iter()
                .map(|p| (p.minute, f64::from(p.free_seats)))
                .collect()
        }),
    ));
    body.push_str(&card(
        "Waiting at the bell, 95th percentile",
        &bars(
            report,
            |o| o.bell_wait_p95_s,
            |o| {
                format!(
                    "{:.1} s; longest {:.0} s; {} without a seat",
                    o.bell_wait_p95_s, o.bell_wait_longest_s, o.bell_without_seat
                )
            },
        ),
    ));
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title}</title><style>{STYLE}</style><main>{body}</main></html>\n"
    )
}

fn card(title: &str, body: &str) -> String {
    format!("<section class=\"card\"><h2>{title}</h2>{body}</section>")
}

fn color(i: usize) -> &'static str {
    COLORS[i % COLORS.len()]
}

fn keys(report: &Report) -> String {
    report
        .outcomes
        .iter()
        .enumerate()
        .map(|(i, o)| {
            format!(
                "<span class=\"key\" style=\"background:{}\"></span><span class=\"dim\">{}</span>",
                color(i),
                o.policy.as_str()
            )
        })
        .collect()
}

type Row<'a> = (&'a str, &'a dyn Fn(&Outcome) -> String);

fn table(report: &Report) -> String {
    let rows: [Row; 13] = [
        ("energy, kWh", &|o| format!("{:.0}", o.kwh)),
        ("less than always on, %", &|o| {
            format!("{:.1}", o.saved_percent)
        }),
        ("without a seat at the bell", &|o| {
            o.bell_without_seat.to_string()
        }),
        ("waiting at the bell, median, s", &|o| {
            format!("{:.1}", o.bell_wait_median_s)
        }),
        ("waiting at the bell, 95 %, s", &|o| {
            format!("{:.1}", o.bell_wait_p95_s)
        }),
        ("waiting at the bell, longest, s", &|o| {
            format!("{:.0}", o.bell_wait_longest_s)
        }),
        ("without a seat outside of class", &|o| {
            o.study_without_seat.to_string()
        }),
        ("moves", &|o| o.moves.to_string()),
        ("disturbed minutes", &|o| o.disturbed_minutes.to_string()),
        ("hosts switched on", &|o| o.switched_on.to_string()),
        ("plans given up", &|o| o.plans_given_up.to_string()),
        ("sessions a broken host interrupted", &|o| {
            o.interrupted.to_string()
        }),
        ("overloaded host minutes", &|o| {
            o.overloaded_host_minutes.to_string()
        }),
    ];
    let mut out = String::from("<table><tr><th></th>");
    for o in &report.outcomes {
        let _ = write!(out, "<th>{}</th>", o.policy.as_str());
    }
    out.push_str("</tr>");
    for (name, cell) in rows {
        let _ = write!(out, "<tr><td>{name}</td>");
        for o in &report.outcomes {
            let _ = write!(out, "<td>{}</td>", cell(o));
        }
        out.push_str("</tr>");
    }
    out + "</table>"
}

fn bars(
    report: &Report,
    value: impl Fn(&Outcome) -> f64,
    label: impl Fn(&Outcome) -> String,
) -> String {
    let most = report.outcomes.iter().map(&value).fold(1e-9, f64::max);
    let height = report.outcomes.len() as f64 * 44.0;
    let mut out = format!("<svg viewBox=\"0 0 {W} {height}\" role=\"img\">");
    for (i, o) in report.outcomes.iter().enumerate() {
        let y = i as f64 * 44.0;
        let _ = write!(
            out,
            "<text x=\"0\" y=\"{:.1}\">{}: {}</text><rect x=\"0\" y=\"{:.1}\" width=\"{:.1}\" height=\"14\" rx=\"4\" fill=\"{}\"/>",
            y + 12.0,
            o.policy.as_str(),
            label(o),
            y + 20.0,
            (value(o) / most * W).max(1.0),
            color(i)
        );
    }
    out + "</svg>"
}

fn lines(report: &Report, points: impl Fn(&Outcome) -> Vec<(u32, f64)>) -> String {
    let series: Vec<Vec<(u32, f64)>> = report.outcomes.iter().map(points).collect();
    let all = || series.iter().flatten();
    let last = f64::from(all().map(|(m, _)| *m).max().unwrap_or(1).max(1));
    let most = all().map(|(_, v)| *v).fold(1.0, f64::max);
    let x = |minute: f64| LEFT + minute / last * (W - LEFT);
    let y = |value: f64| 8.0 + (1.0 - value / most) * (H - 32.0);
    let mut out = format!("<svg viewBox=\"0 0 {W} {H}\" role=\"img\">");
    for part in [0.0, 0.5, 1.0] {
        let _ = write!(
            out,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{W}\" y1=\"{0:.1}\" y2=\"{0:.1}\"/><text x=\"0\" y=\"{1:.1}\">{2:.0}</text>",
            y(most * part),
            y(most * part) + 4.0,
            most * part
        );
    }
    let day = 24.0 * 60.0;
    let days = (last / day).ceil();
    let step = (days / 14.0).ceil().max(1.0);
    let mut at = 0.0;
    while at < days {
        let _ = write!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\">day {}</text>",
            x(at * day),
            H - 4.0,
            at + 1.0
        );
        at += step;
    }
    for (i, line) in series.iter().enumerate() {
        let mut path = String::new();
        for (k, (minute, value)) in line.iter().enumerate() {
            let letter = if k == 0 { 'M' } else { 'L' };
            let _ = write!(
                path,
                "{letter}{:.1} {:.1}",
                x(f64::from(*minute)),
                y(*value)
            );
        }
        let _ = write!(
            out,
            "<path d=\"{path}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.8\"/>",
            color(i)
        );
    }
    out + "</svg>"
}
