// After a switch to another machine the gateway tells Tight's compression streams to begin anew. noVNC's
// inflator keeps the old window when it does so, with a size of nothing, and fails at the second block:
// its port of zlib sizes a window only when there is none. So the window is given up with the rest.
import type RFB from "@novnc/novnc";

interface Inflator {
  reset: () => void;
  strm: { state: { window: unknown } };
}

interface Decoder {
  _zlibs?: Inflator[];
}

/** Makes streams that begin anew do so wholly. */
export function beginStreamsWholly(rfb: RFB): void {
  const decoders = (rfb as unknown as { _decoders: Record<string, Decoder> })._decoders;
  for (const decoder of Object.values(decoders)) {
    for (const inflator of decoder._zlibs ?? []) {
      const reset = inflator.reset.bind(inflator);
      inflator.reset = () => {
        reset();
        inflator.strm.state.window = null;
      };
    }
  }
}
