import type { Image } from "../../api/types";
import { useWords } from "../../i18n";
import { Icon } from "../../ui/icons";
import { flowOf } from "./flow";

/** image → draft → seal → release → in use, with where we are. */
export function FlowView({ image, quiet }: { image: Image; quiet?: boolean }) {
  const { t } = useWords();
  const { steps, next } = flowOf(image, t);
  return (
    <div>
      <ol className="flow">
        {steps.map((step) => (
          <li key={step.name} className={step.at} aria-current={step.at === "here" ? "step" : undefined}>
            <span className="flow-mark" aria-hidden="true">
              {step.at === "done" ? <Icon name="check" size={14} /> : null}
            </span>
            <strong>{t.images.steps[step.name]}</strong>
            <span className="muted">{step.text}</span>
          </li>
        ))}
      </ol>
      {!quiet && <p className="flow-next">{next}</p>}
    </div>
  );
}
