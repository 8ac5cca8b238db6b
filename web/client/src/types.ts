/** The gate's shapes, from its contract: `docs/openapi.json`, by `npm run generate`. */

import type { components } from "./schema.js";

type Schemas = components["schemas"];

/** A user's quota at one moment. */
export type Quota = Schemas["QuotaBody"];
/** A message that was charged, or let through. */
export type Consumed = Schemas["ConsumedBody"];
/** AP that is held, or a message that was let through. */
export type Reservation = Schemas["ReservationBody"];
/** A reservation that was charged. */
export type Committed = Schemas["CommittedBody"];
/** A reservation that was given back. */
export type Released = Schemas["ReleasedBody"];
/** A settlement that is made when Redis is back. */
export type Accepted = Schemas["AcceptedBody"];
/** A change of level. */
export type MembershipChanged = Schemas["MembershipChangedBody"];
/** A level that would give the user more. */
export type Upgrade = Schemas["Upgrade"];
/** The kinds of problems. */
export type Code = Schemas["Code"];
/** A problem, as the gate answers it. */
export type Problem = Schemas["Problem"] & Partial<Schemas["DenialNumbers"]>;
