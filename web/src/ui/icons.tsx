// The page's own icons: 20 x 20, drawn with one stroke.
import type { SVGProps } from "react";

const paths = {
  desktop: "M3 4.5h14v9H3zM7.5 17h5M10 13.5V17",
  overview: "M3 11a7 7 0 1 1 14 0M10 11l3-3.5M3.5 15h13",
  course: "M2.5 7 10 3.5 17.5 7 10 10.5zM5.5 8.7v4.1c1.2 1.3 2.7 1.9 4.5 1.9s3.3-.6 4.5-1.9V8.7M17.5 7v5",
  image: "M10 2.8 16.5 6.3v7.4L10 17.2 3.5 13.7V6.3zM3.7 6.5 10 9.9l6.3-3.4M10 9.9v7.2",
  host: "M3.5 3.5h13v5h-13zM3.5 11.5h13v5h-13zM6.2 6h.1M6.2 14h.1M9.5 6h4M9.5 14h4",
  work: "M10 3v3M10 14v3M3 10h3M14 10h3M5.1 5.1l2 2M12.9 12.9l2 2M14.9 5.1l-2 2M7.1 12.9l-2 2",
  chart: "M3 3v14h14M6 13l3.5-4 3 2.5L17 6",
  people: "M7.3 9.3a2.9 2.9 0 1 0 0-5.8 2.9 2.9 0 0 0 0 5.8zM2.5 16.5c.3-3 2-4.7 4.8-4.7s4.5 1.7 4.8 4.7M13 4a2.7 2.7 0 0 1 0 5.1M14.2 12c2 .4 3.1 2 3.3 4.5",
  audit: "M5 2.8h7l3.5 3.5v10.9H5zM8 9h5M8 12h5M8 15h3",
  settings: "M3 6h6M13 6h4M11 4v4M3 14h3M10 14h7M8 12v4",
  account: "M10 9.5a3.2 3.2 0 1 0 0-6.4 3.2 3.2 0 0 0 0 6.4zM3.8 17c.5-3.3 2.6-5 6.2-5s5.7 1.7 6.2 5",
  signOut: "M8 3.5H4v13h4M8.5 10H17M14 7l3 3-3 3",
  play: "M6.5 4.2v11.6L16 10z",
  open: "M8 4H4v12h12v-4M11 4h5v5M16 4l-7.5 7.5",
  reset: "M4 10a6 6 0 1 0 2-4.5M4.2 3.2v3.6h3.6",
  suspend: "M15.8 12.2A6.5 6.5 0 0 1 7.8 4.2a6.5 6.5 0 1 0 8 8z",
  stop: "M10 3v6M6 5.3a6 6 0 1 0 8 0",
  close: "M5 5l10 10M15 5 5 15",
  more: "M4.5 10h.1M10 10h.1M15.5 10h.1",
  plus: "M10 4v12M4 10h12",
  menu: "M3 6h14M3 10h14M3 14h14",
  back: "M12 4.5 6.5 10l5.5 5.5",
  chevron: "M5.5 8l4.5 4.5L14.5 8",
  check: "M4 10.5l4 4 8-9",
  warning: "M10 3 18 16.5H2zM10 8v4M10 14.3v.1",
  info: "M10 17a7 7 0 1 0 0-14 7 7 0 0 0 0 14zM10 9.3V13.5M10 6.5v.1",
  fullscreen: "M3.5 7.5v-4h4M12.5 3.5h4v4M16.5 12.5v4h-4M7.5 16.5h-4v-4",
  exitFullscreen: "M7.5 3.5v4h-4M16.5 7.5h-4v-4M12.5 16.5v-4h4M3.5 12.5h4v4",
  clipboard: "M7 4H4.5v13h11V4H13M7 2.8h6v2.7H7z",
  keyboard: "M2.5 5h15v10h-15zM5.5 8h.1M8.5 8h.1M11.5 8h.1M14.5 8h.1M6.5 12h7",
  handout: "M10 3v8M6.5 7.5 10 11l3.5-3.5M3.5 12.5v4h13v-4",
  eye: "M2 10c2-3.5 4.7-5.2 8-5.2s6 1.7 8 5.2c-2 3.5-4.7 5.2-8 5.2S4 13.5 2 10zM10 12.3a2.3 2.3 0 1 0 0-4.6 2.3 2.3 0 0 0 0 4.6z",
  upload: "M10 12V3.5M6.5 7 10 3.5 13.5 7M3.5 12.5v4h13v-4",
  seal: "M10 2.8 15.5 5v4.5c0 3.4-1.9 5.9-5.5 7.7-3.6-1.8-5.5-4.3-5.5-7.7V5zM7.3 9.9l2 2 3.5-3.8",
  trash: "M3.5 5.5h13M8 5.5V3.5h4v2M5.5 5.5l.7 11h7.6l.7-11M8.5 8.5v5M11.5 8.5v5",
  link: "M8.5 11.5a3 3 0 0 0 4.3 0l2.7-2.7a3 3 0 0 0-4.3-4.3l-.9.9M11.5 8.5a3 3 0 0 0-4.3 0l-2.7 2.7a3 3 0 0 0 4.3 4.3l.9-.9",
  file: "M5 2.8h6.5L15 6.3v10.9H5zM11.3 3v3.5H15",
  sun: "M10 13.5a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7zM10 2v1.5M10 16.5V18M2 10h1.5M16.5 10H18M4.3 4.3l1.1 1.1M14.6 14.6l1.1 1.1M15.7 4.3l-1.1 1.1M5.4 14.6l-1.1 1.1",
  globe: "M10 17a7 7 0 1 0 0-14 7 7 0 0 0 0 14zM3.2 10h13.6M10 3c2 2 3 4.3 3 7s-1 5-3 7c-2-2-3-4.3-3-7s1-5 3-7z",
  bolt: "M11 2.5 4.5 11.5H9.5L9 17.5l6.5-9h-5z",
  seats: "M3 4h4v4H3zM13 4h4v4h-4zM3 12h4v4H3zM13 12h4v4h-4zM8.5 4h3v4h-3zM8.5 12h3v4h-3z",
  table: "M3 4h14v12H3zM3 8h14M3 12h14M8 8v8",
  pin: "M7 3h6M8 3v5l-2.5 3.5h9L12 8V3M10 11.5V17",
  disk: "M3.5 11.5h13v5h-13zM3.5 11.5l2-8h9l2 8M6.2 14h.1",
} as const;

export type IconName = keyof typeof paths;

export function Icon({ name, size = 20, ...rest }: { name: IconName; size?: number } & SVGProps<SVGSVGElement>) {
  return (
    <svg
      viewBox="0 0 20 20"
      width={size}
      height={size}
      fill="none"
      stroke="currentColor"
      strokeWidth={name === "more" ? 2.6 : 1.6}
      strokeLinecap="round"
      strokeLinejoin="round"
      aria-hidden="true"
      focusable="false"
      {...rest}
    >
      <path d={paths[name]} />
    </svg>
  );
}

/** The mark of the product: a portico. */
export function Mark({ size = 28 }: { size?: number }) {
  return (
    <svg viewBox="0 0 32 32" width={size} height={size} aria-hidden="true" focusable="false" className="mark">
      <path d="M5 12.2 16 5.8l11 6.4" fill="none" stroke="var(--chalk-yellow)" strokeWidth="2.6" strokeLinecap="round" strokeLinejoin="round" />
      <path d="M9 15.8v7M16 15.8v7M23 15.8v7M5.8 26.5h20.4" fill="none" stroke="currentColor" strokeWidth="2.6" strokeLinecap="round" />
    </svg>
  );
}
