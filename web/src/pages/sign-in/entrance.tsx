// The frame of sign-in and welcome.
import type { ReactNode } from "react";
import { LanguageSwitch } from "../../shell/looks";
import { Mark } from "../../ui/icons";

export function Entrance({ title, subtitle, children }: { title: string; subtitle: string; children: ReactNode }) {
  return (
    <div className="entrance">
      <div className="entrance-board" aria-hidden="true">
        <Mark size={56} />
        <p>Lyceum</p>
        <div className="desk-rows">
          {Array.from({ length: 24 }, (_, i) => (
            <span key={i} className={i % 7 === 3 ? "lit" : i % 5 === 1 ? "half" : ""} />
          ))}
        </div>
      </div>
      <main className="entrance-form" id="main">
        <div>
          <h1>{title}</h1>
          <p className="lead">{subtitle}</p>
          {children}
        </div>
        <LanguageSwitch />
      </main>
    </div>
  );
}
